#include "layers/kernels/cuda/blas/cublaslt_library.h"

#include <fmt/format.h>

#include <string>
#include <utility>
#include <vector>

#include "collectives/backend/cuda/device/emulated_stream.h"
#include "collectives/backend/cuda/library/shared_library.h"

namespace shardproof {
namespace {

using cublaslt::Result;

constexpr size_t kOldestMajor = 12;

// Up to 11 a major version counted thousands.
size_t Unit(size_t version) { return version < 100000 ? 1000 : 10000; }

void FindAll(SharedLibrary& file, cublaslt::Api& api) {
  file.Need("cublasLtGetStatusName", api.get_status_name);
  file.Need("cublasLtCreate", api.create);
  file.Need("cublasLtDestroy", api.destroy);
  file.Need("cublasLtMatmulDescCreate", api.matmul_desc_create);
  file.Need("cublasLtMatmulDescDestroy", api.matmul_desc_destroy);
  file.Need("cublasLtMatmulDescSetAttribute", api.matmul_desc_set_attribute);
  file.Need("cublasLtMatrixLayoutCreate", api.matrix_layout_create);
  file.Need("cublasLtMatrixLayoutDestroy", api.matrix_layout_destroy);
  file.Need("cublasLtMatmulPreferenceCreate", api.matmul_preference_create);
  file.Need("cublasLtMatmulPreferenceDestroy", api.matmul_preference_destroy);
  file.Need("cublasLtMatmulPreferenceSetAttribute",
            api.matmul_preference_set_attribute);
  file.Need("cublasLtMatmulAlgoGetHeuristic", api.matmul_algo_get_heuristic);
  file.Need("cublasLtMatmulAlgoConfigGetAttribute",
            api.matmul_algo_config_get_attribute);
  file.Need("cublasLtMatmul", api.matmul);
}

}  // namespace

std::string CublasLtVersionText(size_t version) {
  const size_t unit = Unit(version);
  return fmt::format("{}.{}.{}", version / unit, version % unit / 100,
                     version % 100);
}

std::vector<std::string> CublasLtSearchPaths() {
  // The newest first: what a newer toolkit's driver runs, it runs with the newest library too.
  return LibrarySearchPaths(
      {"libcublasLt.so.13", "libcublasLt.so.12", "libcublasLt.so"});
}

StatusOr<std::shared_ptr<const CublasLtLibrary>> CublasLtLibrary::Load(
    const std::string& path) {
  StatusOr<SharedLibrary> opened = SharedLibrary::Open(
      "cuBLASLt",
      path.empty() ? CublasLtSearchPaths() : std::vector<std::string>{path});
  if (!opened.ok()) {
    if (!path.empty()) return opened.status();
    return Unavailable(
        "{}; put the folder of libcublasLt.so.13 into LD_LIBRARY_PATH",
        opened.status().message());
  }
  SharedLibrary file = *std::move(opened);
  std::shared_ptr<CublasLtLibrary> library(new CublasLtLibrary());
  cublaslt::Api& api = library->api_;
  file.Want("cublasLtGetVersion", api.get_version);
  if (api.get_version == nullptr) {
    return Unavailable(
        "{} is not a cuBLASLt library: it has no cublasLtGetVersion",
        file.path());
  }
  library->path_ = file.PathOf(api.get_version);
  library->version_ = api.get_version();
  if (library->version_ / Unit(library->version_) < kOldestMajor) {
    return Unavailable("{} is too old: {}.0 or newer is needed",
                       library->Describe(), kOldestMajor);
  }
  FindAll(file, api);
  if (!file.missing().empty()) {
    return Unavailable("{} has no {}", library->Describe(), file.missing());
  }
  library->emulated_ = file.Has(cuda::kTakesEmulatedStreams);
  file.Keep();
  return std::shared_ptr<const CublasLtLibrary>(std::move(library));
}

std::string CublasLtLibrary::Describe() const {
  return fmt::format("cuBLASLt {} at {}", CublasLtVersionText(version_), path_);
}

Status CublasLtLibrary::StatusOf(Result result, std::string_view what) const {
  if (result == Result::kSuccess) return OkStatus();
  const char* name = api_.get_status_name(result);
  std::string text =
      fmt::format("{}: {}", what, name == nullptr ? "no status name" : name);
  switch (result) {
    case Result::kAllocFailed:
      return Status(StatusCode::kOutOfMemory, std::move(text));
    case Result::kNotSupported:
    case Result::kArchMismatch:
      return Status(StatusCode::kUnsupported, std::move(text));
    default:
      return Status(StatusCode::kInternal, std::move(text));
  }
}

}  // namespace shardproof
