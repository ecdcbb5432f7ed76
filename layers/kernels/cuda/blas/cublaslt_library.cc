#include "layers/kernels/cuda/blas/cublaslt_library.h"

#include <dlfcn.h>
#include <fmt/format.h>

#include <array>
#include <cstdlib>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include "collectives/backend/cuda/device/emulated_stream.h"

namespace shardproof {
namespace {

using cublaslt::Result;

constexpr size_t kOldestMajor = 12;
// The newest first: what a newer toolkit's driver runs, it runs with the newest library too.
constexpr std::array<const char*, 3> kNames = {
    "libcublasLt.so.13", "libcublasLt.so.12", "libcublasLt.so"};

// Up to 11 a major version counted thousands.
size_t Unit(size_t version) { return version < 100000 ? 1000 : 10000; }

// The name of the first function that is missing, or nothing.
std::string FindAll(void* handle, cublaslt::Api& api) {
  std::string missing;
  const auto need = [&]<class Function>(const char* name, Function*& function) {
    function = reinterpret_cast<Function*>(dlsym(handle, name));
    if (function == nullptr && missing.empty()) missing = name;
  };
  need("cublasLtGetStatusName", api.get_status_name);
  need("cublasLtCreate", api.create);
  need("cublasLtDestroy", api.destroy);
  need("cublasLtMatmulDescCreate", api.matmul_desc_create);
  need("cublasLtMatmulDescDestroy", api.matmul_desc_destroy);
  need("cublasLtMatmulDescSetAttribute", api.matmul_desc_set_attribute);
  need("cublasLtMatrixLayoutCreate", api.matrix_layout_create);
  need("cublasLtMatrixLayoutDestroy", api.matrix_layout_destroy);
  need("cublasLtMatmulPreferenceCreate", api.matmul_preference_create);
  need("cublasLtMatmulPreferenceDestroy", api.matmul_preference_destroy);
  need("cublasLtMatmulPreferenceSetAttribute",
       api.matmul_preference_set_attribute);
  need("cublasLtMatmulAlgoGetHeuristic", api.matmul_algo_get_heuristic);
  need("cublasLtMatmulAlgoConfigGetAttribute",
       api.matmul_algo_config_get_attribute);
  need("cublasLtMatmul", api.matmul);
  return missing;
}

// Where the linker found what was asked for by name alone.
std::string FileOf(const void* function, const std::string& otherwise) {
  Dl_info info = {};
  if (dladdr(function, &info) == 0 || info.dli_fname == nullptr) {
    return otherwise;
  }
  return info.dli_fname;
}

}  // namespace

std::string CublasLtVersionText(size_t version) {
  const size_t unit = Unit(version);
  return fmt::format("{}.{}.{}", version / unit, version % unit / 100,
                     version % 100);
}

std::vector<std::string> CublasLtSearchPaths() {
  std::vector<std::string> paths(kNames.begin(), kNames.end());
  const auto add = [&](const std::string& root) {
    for (const char* folder : {"lib", "lib64"}) {
      for (const char* name : kNames) {
        paths.push_back(fmt::format("{}/{}/{}", root, folder, name));
      }
    }
  };
  for (const char* variable : {"CUDA_HOME", "CUDA_PATH"}) {
    if (const char* root = std::getenv(variable)) add(root);
  }
  add("/usr/local/cuda");
  return paths;
}

StatusOr<std::shared_ptr<const CublasLtLibrary>> CublasLtLibrary::Load(
    const std::string& path) {
  // Ranks that are threads load at once, and the name that dladdr gives one of them is what dlopen wrote in another.
  static std::mutex mutex;
  const std::lock_guard lock(mutex);
  if (!path.empty()) return LoadFile(path);
  const std::vector<std::string> paths = CublasLtSearchPaths();
  // The first that can be opened counts, whatever is wrong with it: to go on would hide what is wrong.
  for (const std::string& candidate : paths) {
    void* handle = dlopen(candidate.c_str(), RTLD_NOW | RTLD_LOCAL);
    if (handle == nullptr) continue;
    StatusOr<std::shared_ptr<const CublasLtLibrary>> loaded =
        LoadFile(candidate);
    dlclose(handle);
    return loaded;
  }
  return Unavailable(
      "there is no cuBLASLt: nothing from {} to {} can be opened; put the "
      "folder of libcublasLt.so.13 into LD_LIBRARY_PATH",
      paths.front(), paths.back());
}

StatusOr<std::shared_ptr<const CublasLtLibrary>> CublasLtLibrary::LoadFile(
    const std::string& path) {
  void* handle = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (handle == nullptr) {
    const char* why = dlerror();
    return Unavailable("the cuBLASLt library {} cannot be loaded: {}", path,
                       why == nullptr ? "dlopen gave no reason" : why);
  }
  std::shared_ptr<CublasLtLibrary> library(new CublasLtLibrary());
  library->path_ = path;
  cublaslt::Api& api = library->api_;
  const auto refuse = [&](Status status) {
    dlclose(handle);
    return status;
  };
  api.get_version =
      reinterpret_cast<size_t (*)()>(dlsym(handle, "cublasLtGetVersion"));
  if (api.get_version == nullptr) {
    return refuse(Unavailable(
        "{} is not a cuBLASLt library: it has no cublasLtGetVersion", path));
  }
  library->path_ = FileOf(reinterpret_cast<const void*>(api.get_version), path);
  library->version_ = api.get_version();
  if (library->version_ / Unit(library->version_) < kOldestMajor) {
    return refuse(Unavailable("{} is too old: {}.0 or newer is needed",
                              library->Describe(), kOldestMajor));
  }
  const std::string missing = FindAll(handle, api);
  if (!missing.empty()) {
    return refuse(Unavailable("{} has no {}", library->Describe(), missing));
  }
  library->emulated_ = dlsym(handle, cuda::kTakesEmulatedStreams) != nullptr;
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
