// One rank's end of a library's communicator in a process of its own. NCCL before
// 2.30 takes one rank of a process and of a host on each GPU; ranks of several
// processes that name different hosts (NCCL_HOSTID) may share one, and speak by
// sockets. Slow, so for correctness alone.
//
//     SP_ASSIGN_OR_RETURN(const auto rank, NcclRankProcess::Start({.command = {"/proc/self/exe", kNcclRankCommand},
//                                                                  .setup = {...}, .control = &comm}));
//     SP_ASSIGN_OR_RETURN(const auto id, AgreeOnNcclId(comm, rank->version(), [&] { return rank->id(); }));
//     SP_RETURN_IF_ERROR(rank->Join(id));
//     SP_RETURN_IF_ERROR(rank->Run(request));
//
// The process is this very program, which calls ServeNcclRank (rank_server.h): CUDA
// does not survive a fork. Buffers are copied through shared memory (staging.h).
//
// Every wait ends: with the answer, which may be the library's timeout; at once
// when the process ends or the world of `control` is aborted; else `grace` after
// the timeout. All but the first end the process and abort the world.
#ifndef SHARDPROOF_COLLECTIVES_BACKEND_NCCL_PROCESS_RANK_PROCESS_H_
#define SHARDPROOF_COLLECTIVES_BACKEND_NCCL_PROCESS_RANK_PROCESS_H_

#include <sys/types.h>

#include <chrono>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "collectives/backend.h"
#include "collectives/backend/nccl/nccl_abi.h"
#include "collectives/backend/nccl/process/rank_protocol.h"
#include "collectives/backend/nccl/process/rank_socket.h"
#include "collectives/backend/nccl/process/shared_block.h"
#include "collectives/backend/node/child_process.h"
#include "collectives/communicator.h"
#include "reference/status.h"

namespace shardproof {

struct NcclRankOptions {
  // A program that calls ServeNcclRank, by its path, and its arguments.
  std::vector<std::string> command = {};
  RankSetup setup = {};
  std::chrono::milliseconds grace = std::chrono::seconds(5);
  // The same ranks, by the host. Not owned.
  const Communicator* control = nullptr;
};

// Used by one thread at a time.
class NcclRankProcess {
 public:
  // Has loaded the library and opened the GPU. kUnavailable: the program cannot
  // be started, or ended; else what the library or the GPU says.
  static StatusOr<std::unique_ptr<NcclRankProcess>> Start(
      NcclRankOptions options);
  // Collective, as ~NcclCommunicator, where it has joined and all is well. Else
  // the process is killed.
  ~NcclRankProcess();
  NcclRankProcess(const NcclRankProcess&) = delete;
  NcclRankProcess& operator=(const NcclRankProcess&) = delete;

  // Of the library that it has loaded: 22809.
  int version() const { return version_; }
  // Of rank 0: a unique id of this process.
  const nccl::UniqueId& id() const { return id_; }
  // 0 once it has ended.
  pid_t pid() const { return child_.pid(); }

  // Collective: ncclCommInitRankConfig.
  Status Join(const nccl::UniqueId& id);
  // As RunNcclNative, on any memory of this process.
  Status Run(const NativeRequest& request);

 private:
  explicit NcclRankProcess(NcclRankOptions options);
  Status Spawn();
  // The answer to `message`. `what` is under way: "all_reduce of 3 f32".
  StatusOr<RankAnswer> Ask(const MessageBytes& message, std::string_view what);
  // Ends the process, and the waits of all ranks.
  Status Fail(Status why);
  Status Died(std::string_view who);

  const NcclRankOptions options_;
  RankSocket socket_;
  SharedBlock memory_;
  ChildProcess child_;
  int version_ = 0;
  nccl::UniqueId id_ = {};
  bool joined_ = false;
  Status failure_;
};

}  // namespace shardproof

#endif  // SHARDPROOF_COLLECTIVES_BACKEND_NCCL_PROCESS_RANK_PROCESS_H_
