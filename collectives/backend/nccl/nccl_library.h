// A library with NCCL's C interface, loaded at run time: NVIDIA's own, a fork of
// it, or one under development.
//
//     SP_ASSIGN_OR_RETURN(const auto library, NcclLibrary::Load("/opt/nccl.so"));
//     library->Describe();                      // "NCCL 2.28.9 at /opt/nccl.so"
//     SP_ASSIGN_OR_RETURN(const auto id, library->MakeUniqueId());
//
// Loading one does not need a GPU; making a communicator of it does.
//
// The oldest version is 2.14, the first with communicators that do not block: in
// an older one a rank that never comes cannot be given up on.
#ifndef SHARDPROOF_COLLECTIVES_BACKEND_NCCL_NCCL_LIBRARY_H_
#define SHARDPROOF_COLLECTIVES_BACKEND_NCCL_NCCL_LIBRARY_H_

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "collectives/backend/nccl/nccl_abi.h"
#include "reference/status.h"

namespace shardproof {

// What came after 2.14 and makes a difference here.
enum class NcclFeature {
  kScalableInit,       // ncclCommInitRankScalable, 2.23; not used here
  kFp8,                // e4m3 and e5m2, reduced on sm_90 and newer, 2.24
  kAllToAll,           // ncclAlltoAll, 2.28
  kGather,             // ncclGather, 2.28
  kScatter,            // ncclScatter, 2.28
  kSeveralRanksOnGpu,  // NCCL_MULTI_RANK_GPU_ENABLE=1, 2.30; experimental
};

struct NcclCapability {
  NcclFeature feature;
  std::string_view name;  // "fp8"
  int since;              // The version that brought it: 22400.
  bool present;
};

// 22809 is "2.28.9", 2708 is "2.7.8": the coding changed after 2.8.
std::string NcclVersionText(int version);

// Where a library is looked for that nobody names, in this order: libnccl.so.2
// where the dynamic linker finds it, then in the lib folders of CUDA_HOME,
// CUDA_PATH and /usr/local/cuda.
std::vector<std::string> NcclSearchPaths();

class NcclLibrary {
 public:
  // Opens `path`; empty: the first of NcclSearchPaths that can be opened. It
  // stays loaded until the process ends, since it has threads of its own.
  //
  // kUnavailable, as one sentence that names the file: it is not there or cannot
  // be loaded, lacks a function, or is older than 2.14.
  static StatusOr<std::shared_ptr<const NcclLibrary>> Load(
      const std::string& path = {});

  const nccl::Api& api() const { return api_; }
  // The file that was loaded.
  const std::string& path() const { return path_; }
  int version() const { return version_; }
  // "NCCL 2.28.9 at /usr/lib/libnccl.so.2"
  std::string Describe() const;

  bool Has(NcclFeature feature) const;
  // Whether it works on emulated GPUs (cuda/device/emulated_stream.h), and on no others.
  bool emulated() const { return emulated_; }
  std::vector<NcclCapability> Capabilities() const;

  // Ok for success and for kInProgress. Else the library's own words: "what:
  // <ncclGetErrorString>: <ncclGetLastError of comm>". kUnavailable where the
  // device or the system failed, kAborted where a peer did, else kInternal.
  Status StatusOf(nccl::Result result, std::string_view what,
                  nccl::Comm comm = nullptr) const;
  // ncclGetLastError, on one line; empty where the library has nothing to say.
  std::string LastError(nccl::Comm comm) const;

  // The name of a communicator to be. For one process: make one, and give a copy
  // to the thread of every rank. Else see nccl_bootstrap.h.
  StatusOr<nccl::UniqueId> MakeUniqueId() const;

 private:
  NcclLibrary() = default;

  nccl::Api api_;
  std::string path_;
  int version_ = 0;
  bool emulated_ = false;
};

}  // namespace shardproof

#endif  // SHARDPROOF_COLLECTIVES_BACKEND_NCCL_NCCL_LIBRARY_H_
