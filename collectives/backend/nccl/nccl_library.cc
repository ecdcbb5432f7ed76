#include "collectives/backend/nccl/nccl_library.h"

#include <fmt/format.h>

#include <algorithm>
#include <string>
#include <utility>
#include <vector>

#include "collectives/backend/cuda/device/emulated_stream.h"
#include "collectives/backend/cuda/library/shared_library.h"

namespace shardproof {
namespace {

constexpr int kOldest = 21400;

// ncclGetVersion comes first: a file without it is not NCCL at all, and the
// functions that an old one lacks are less to the point than its age.
void FindAll(SharedLibrary& file, nccl::Api& api) {
  file.Need("ncclGetUniqueId", api.get_unique_id);
  file.Need("ncclGetErrorString", api.get_error_string);
  file.Need("ncclGetLastError", api.get_last_error);
  file.Need("ncclCommInitRankConfig", api.comm_init_rank_config);
  file.Need("ncclCommFinalize", api.comm_finalize);
  file.Need("ncclCommDestroy", api.comm_destroy);
  file.Need("ncclCommAbort", api.comm_abort);
  file.Need("ncclCommGetAsyncError", api.comm_get_async_error);
  file.Need("ncclRedOpCreatePreMulSum", api.red_op_create_pre_mul_sum);
  file.Need("ncclRedOpDestroy", api.red_op_destroy);
  file.Need("ncclGroupStart", api.group_start);
  file.Need("ncclGroupEnd", api.group_end);
  file.Need("ncclAllReduce", api.all_reduce);
  file.Need("ncclReduce", api.reduce);
  file.Need("ncclBroadcast", api.broadcast);
  file.Need("ncclReduceScatter", api.reduce_scatter);
  file.Need("ncclAllGather", api.all_gather);
  file.Need("ncclSend", api.send);
  file.Need("ncclRecv", api.recv);
  file.Want("ncclCommInitRankScalable", api.comm_init_rank_scalable);
  file.Want("ncclAlltoAll", api.all_to_all);
  file.Want("ncclGather", api.gather);
  file.Want("ncclScatter", api.scatter);
}

}  // namespace

std::vector<std::string> NcclSearchPaths() {
  return LibrarySearchPaths({"libnccl.so.2"});
}

std::string NcclVersionText(int version) {
  // Up to 2.8 a minor version had one digit.
  const int unit = version < 10000 ? 1000 : 10000;
  return fmt::format("{}.{}.{}", version / unit, version % unit / 100,
                     version % 100);
}

StatusOr<std::shared_ptr<const NcclLibrary>> NcclLibrary::Load(
    const std::string& path) {
  StatusOr<SharedLibrary> opened = SharedLibrary::Open(
      "NCCL",
      path.empty() ? NcclSearchPaths() : std::vector<std::string>{path});
  if (!opened.ok()) {
    if (!path.empty()) return opened.status();
    return Unavailable("{}; name a library with --nccl-library",
                       opened.status().message());
  }
  SharedLibrary file = *std::move(opened);
  std::shared_ptr<NcclLibrary> library(new NcclLibrary());
  nccl::Api& api = library->api_;
  file.Want("ncclGetVersion", api.get_version);
  if (api.get_version == nullptr) {
    return Unavailable("{} is not an NCCL library: it has no ncclGetVersion",
                       file.path());
  }
  library->path_ = file.PathOf(api.get_version);
  const nccl::Result asked = api.get_version(&library->version_);
  if (asked != nccl::Result::kSuccess || library->version_ <= 0) {
    return Unavailable("{} does not tell its version: ncclGetVersion gave {}",
                       library->path_, static_cast<int>(asked));
  }
  if (library->version_ < kOldest) {
    return Unavailable(
        "{} is too old: {} or newer is needed, for communicators that do not "
        "block",
        library->Describe(), NcclVersionText(kOldest));
  }
  FindAll(file, api);
  if (!file.missing().empty()) {
    return Unavailable("{} has no {}", library->Describe(), file.missing());
  }
  library->emulated_ = file.Has(cuda::kTakesEmulatedStreams);
  file.Keep();
  return std::shared_ptr<const NcclLibrary>(std::move(library));
}

std::string NcclLibrary::Describe() const {
  return fmt::format("NCCL {} at {}", NcclVersionText(version_), path_);
}

bool NcclLibrary::Has(NcclFeature feature) const {
  // A function is looked for; what has none goes by the version.
  switch (feature) {
    case NcclFeature::kScalableInit:
      return api_.comm_init_rank_scalable != nullptr;
    case NcclFeature::kFp8:
      return version_ >= 22400;
    case NcclFeature::kAllToAll:
      return api_.all_to_all != nullptr;
    case NcclFeature::kGather:
      return api_.gather != nullptr;
    case NcclFeature::kScatter:
      return api_.scatter != nullptr;
    case NcclFeature::kSeveralRanksOnGpu:
      return version_ >= 23000;
  }
  return false;
}

std::vector<NcclCapability> NcclLibrary::Capabilities() const {
  std::vector<NcclCapability> all = {
      {NcclFeature::kScalableInit, "scalable init", 22300, false},
      {NcclFeature::kFp8, "fp8", 22400, false},
      {NcclFeature::kAllToAll, "ncclAlltoAll", 22800, false},
      {NcclFeature::kGather, "ncclGather", 22800, false},
      {NcclFeature::kScatter, "ncclScatter", 22800, false},
      {NcclFeature::kSeveralRanksOnGpu, "several ranks on one GPU", 23000,
       false},
  };
  for (NcclCapability& one : all) one.present = Has(one.feature);
  return all;
}

std::string NcclLibrary::LastError(nccl::Comm comm) const {
  const char* words = api_.get_last_error(comm);
  std::string text = words == nullptr ? "" : words;
  std::replace(text.begin(), text.end(), '\n', ' ');
  text.erase(text.find_last_not_of(' ') + 1);
  return text;
}

Status NcclLibrary::StatusOf(nccl::Result result, std::string_view what,
                             nccl::Comm comm) const {
  if (result == nccl::Result::kSuccess || result == nccl::Result::kInProgress) {
    return OkStatus();
  }
  const char* name = api_.get_error_string(result);
  const std::string last = LastError(comm);
  std::string text = fmt::format("{}: {}{}{}", what,
                                 name == nullptr ? "no error string" : name,
                                 last.empty() ? "" : ": ", last);
  switch (result) {
    case nccl::Result::kUnhandledCudaError:
    case nccl::Result::kSystemError:
      return Status(StatusCode::kUnavailable, std::move(text));
    case nccl::Result::kRemoteError:
      return Status(StatusCode::kAborted, std::move(text));
    default:
      return Status(StatusCode::kInternal, std::move(text));
  }
}

StatusOr<nccl::UniqueId> NcclLibrary::MakeUniqueId() const {
  nccl::UniqueId id = {};
  SP_RETURN_IF_ERROR(StatusOf(api_.get_unique_id(&id), "ncclGetUniqueId"));
  return id;
}

}  // namespace shardproof
