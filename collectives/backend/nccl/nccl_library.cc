#include "collectives/backend/nccl/nccl_library.h"

#include <dlfcn.h>
#include <fmt/format.h>

#include <algorithm>
#include <cstdlib>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include "collectives/backend/cuda/device/emulated_stream.h"

namespace shardproof {
namespace {

constexpr int kOldest = 21400;

// Looks functions up and remembers the first that is missing.
class Symbols {
 public:
  explicit Symbols(void* handle) : handle_(handle) {}

  template <class Function>
  void Need(const char* name, Function*& function) {
    Want(name, function);
    if (function == nullptr && missing_.empty()) missing_ = name;
  }
  template <class Function>
  void Want(const char* name, Function*& function) {
    function = reinterpret_cast<Function*>(dlsym(handle_, name));
  }
  const std::string& missing() const { return missing_; }

 private:
  void* handle_;
  std::string missing_;
};

// ncclGetVersion comes first: a file without it is not NCCL at all, and the
// functions that an old one lacks are less to the point than its age.
std::string FindAll(void* handle, nccl::Api& api) {
  Symbols symbols(handle);
  symbols.Need("ncclGetUniqueId", api.get_unique_id);
  symbols.Need("ncclGetErrorString", api.get_error_string);
  symbols.Need("ncclGetLastError", api.get_last_error);
  symbols.Need("ncclCommInitRankConfig", api.comm_init_rank_config);
  symbols.Need("ncclCommFinalize", api.comm_finalize);
  symbols.Need("ncclCommDestroy", api.comm_destroy);
  symbols.Need("ncclCommAbort", api.comm_abort);
  symbols.Need("ncclCommGetAsyncError", api.comm_get_async_error);
  symbols.Need("ncclRedOpCreatePreMulSum", api.red_op_create_pre_mul_sum);
  symbols.Need("ncclRedOpDestroy", api.red_op_destroy);
  symbols.Need("ncclGroupStart", api.group_start);
  symbols.Need("ncclGroupEnd", api.group_end);
  symbols.Need("ncclAllReduce", api.all_reduce);
  symbols.Need("ncclReduce", api.reduce);
  symbols.Need("ncclBroadcast", api.broadcast);
  symbols.Need("ncclReduceScatter", api.reduce_scatter);
  symbols.Need("ncclAllGather", api.all_gather);
  symbols.Need("ncclSend", api.send);
  symbols.Need("ncclRecv", api.recv);
  symbols.Want("ncclCommInitRankScalable", api.comm_init_rank_scalable);
  symbols.Want("ncclAlltoAll", api.all_to_all);
  symbols.Want("ncclGather", api.gather);
  symbols.Want("ncclScatter", api.scatter);
  return symbols.missing();
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

std::vector<std::string> NcclSearchPaths() {
  std::vector<std::string> paths = {"libnccl.so.2"};
  const auto add = [&](const std::string& root) {
    for (const char* folder : {"lib", "lib64"}) {
      paths.push_back(fmt::format("{}/{}/libnccl.so.2", root, folder));
    }
  };
  for (const char* variable : {"CUDA_HOME", "CUDA_PATH"}) {
    if (const char* root = std::getenv(variable)) add(root);
  }
  add("/usr/local/cuda");
  return paths;
}

std::string NcclVersionText(int version) {
  // Up to 2.8 a minor version had one digit.
  const int unit = version < 10000 ? 1000 : 10000;
  return fmt::format("{}.{}.{}", version / unit, version % unit / 100,
                     version % 100);
}

StatusOr<std::shared_ptr<const NcclLibrary>> NcclLibrary::Load(
    const std::string& path) {
  // Ranks that are threads load at once, and the name that dladdr gives one of
  // them is what dlopen wrote in another.
  static std::mutex mutex;
  const std::lock_guard lock(mutex);
  if (!path.empty()) return LoadFile(path);
  const std::vector<std::string> paths = NcclSearchPaths();
  // The first that can be opened counts, whatever is wrong with it: to go on
  // would put another library under test than the one that programs get.
  for (const std::string& candidate : paths) {
    void* handle = dlopen(candidate.c_str(), RTLD_NOW | RTLD_LOCAL);
    if (handle == nullptr) continue;
    StatusOr<std::shared_ptr<const NcclLibrary>> loaded = LoadFile(candidate);
    dlclose(handle);
    return loaded;
  }
  return Unavailable(
      "there is no NCCL: neither {} nor {} can be opened; name a library with "
      "--nccl-library",
      paths.front(), paths.back());
}

StatusOr<std::shared_ptr<const NcclLibrary>> NcclLibrary::LoadFile(
    const std::string& path) {
  void* handle = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (handle == nullptr) {
    // Its words begin with the path in most cases, but not in all.
    const char* why = dlerror();
    return Unavailable("the NCCL library {} cannot be loaded: {}", path,
                       why == nullptr ? "dlopen gave no reason" : why);
  }
  std::shared_ptr<NcclLibrary> library(new NcclLibrary());
  library->path_ = path;
  nccl::Api& api = library->api_;
  const auto refuse = [&](Status status) {
    dlclose(handle);
    return status;
  };
  Symbols(handle).Want("ncclGetVersion", api.get_version);
  if (api.get_version == nullptr) {
    return refuse(Unavailable(
        "{} is not an NCCL library: it has no ncclGetVersion", path));
  }
  library->path_ = FileOf(reinterpret_cast<const void*>(api.get_version), path);
  const nccl::Result asked = api.get_version(&library->version_);
  if (asked != nccl::Result::kSuccess || library->version_ <= 0) {
    return refuse(
        Unavailable("{} does not tell its version: ncclGetVersion gave {}",
                    library->path_, static_cast<int>(asked)));
  }
  if (library->version_ < kOldest) {
    return refuse(Unavailable(
        "{} is too old: {} or newer is needed, for communicators that do not "
        "block",
        library->Describe(), NcclVersionText(kOldest)));
  }
  const std::string missing = FindAll(handle, api);
  if (!missing.empty()) {
    return refuse(Unavailable("{} has no {}", library->Describe(), missing));
  }
  library->emulated_ = dlsym(handle, cuda::kTakesEmulatedStreams) != nullptr;
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
