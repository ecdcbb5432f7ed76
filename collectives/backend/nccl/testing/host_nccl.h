// What host_nccl.cc exports besides NCCL's interface: streams, which on a GPU
// are CUDA's, and faults to plant.
#ifndef SHARDPROOF_COLLECTIVES_BACKEND_NCCL_TESTING_HOST_NCCL_H_
#define SHARDPROOF_COLLECTIVES_BACKEND_NCCL_TESTING_HOST_NCCL_H_

#include "collectives/backend/nccl/nccl_abi.h"

namespace shardproof::nccl {

struct HostApi {
  // An in-order queue with a thread of its own.
  Stream (*stream_create)() = nullptr;       // hostNcclStreamCreate
  void (*stream_destroy)(Stream) = nullptr;  // hostNcclStreamDestroy
  bool (*stream_done)(Stream) = nullptr;     // hostNcclStreamDone
  // From here on `rank` of every communicator has the fault; null: none has any.
  // A fault is "<what>" or "<what> <function>", as "hangs ncclAllReduce":
  //
  //   init_fails       ncclCommInitRankConfig gives kSystemError
  //   no_id            ncclGetUniqueId gives kUnhandledCudaError
  //   refuses F        F gives kInvalidUsage
  //   hangs F          F never ends on the stream
  //   async_error F    F never ends, and the communicator has kRemoteError
  //   wrong F          one byte of the result of F is changed
  //   beside F         the byte before the result of F is changed
  //   never_queued F   the communicator stays in kInProgress
  //   killed F         a SIGKILL ends the process in F
  //   exits F          the process ends with exit status 3 in F
  //
  // In other processes: HOST_NCCL_PLANT="<rank> <fault>" in the environment when
  // the library is loaded.
  void (*plant)(const char* fault, int rank) = nullptr;  // hostNcclPlant
};

}  // namespace shardproof::nccl

#endif  // SHARDPROOF_COLLECTIVES_BACKEND_NCCL_TESTING_HOST_NCCL_H_
