// The other side of NcclRankProcess: one rank's end of a library's communicator,
// in a process of its own.
//
//     shardproof nccl-rank     with the files of rank_protocol.h open
//
// Ends when it is told to, and whatever it is doing when the process that started
// it has gone: a thread waits for the end of the socket. Rejected: PR_SET_PDEATHSIG,
// which is sent when the thread that started it ends, and the owner may have others.
#ifndef SHARDPROOF_COLLECTIVES_BACKEND_NCCL_PROCESS_RANK_SERVER_H_
#define SHARDPROOF_COLLECTIVES_BACKEND_NCCL_PROCESS_RANK_SERVER_H_

#include <functional>
#include <memory>

#include "collectives/backend/cuda/device/gpu.h"
#include "reference/status.h"

namespace shardproof {

// The argument that makes a program call ServeNcclRank.
inline constexpr char kNcclRankCommand[] = "nccl-rank";

// The GPUs of the machine, or so many emulated ones.
using OpenGpusOfRank =
    std::function<StatusOr<std::shared_ptr<cuda::GpuSystem>>(int emulated)>;

// Returns when the rank is closed. kInvalidArgument: this process was not started
// by NcclRankProcess.
Status ServeNcclRank(const OpenGpusOfRank& open);

}  // namespace shardproof

#endif  // SHARDPROOF_COLLECTIVES_BACKEND_NCCL_PROCESS_RANK_SERVER_H_
