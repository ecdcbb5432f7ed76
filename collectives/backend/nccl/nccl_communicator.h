// One rank's end of an NCCL communicator that cannot hang: every wait has a
// deadline, and whatever fails ends in ncclCommAbort.
//
//     NcclCommunicatorOptions options{.rank = r, .ranks = p, .control = &comm};
//     SP_ASSIGN_OR_RETURN(auto nccl, NcclCommunicator::Create(library, id,
//                                                             device, options));
//     NcclCall call{.function = "ncclAllReduce", .count = n};
//     SP_RETURN_IF_ERROR(nccl->Settle(api.all_reduce(...), call));   // queued
//     SP_RETURN_IF_ERROR(nccl->Finish(stream, call));                // done
//
// The communicator does not block (ncclConfig_t::blocking = 0): each call
// returns at once, and Settle asks ncclCommGetAsyncError until it is under way.
// Rejected: a blocking one with a thread that aborts it. ncclCommInitRank has no
// communicator to abort before it returns.
//
// A failure on one rank reaches the others through `control`, whose abort flag
// every wait looks at; without one they end at their own deadline.
#ifndef SHARDPROOF_COLLECTIVES_BACKEND_NCCL_NCCL_COMMUNICATOR_H_
#define SHARDPROOF_COLLECTIVES_BACKEND_NCCL_NCCL_COMMUNICATOR_H_

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>

#include "collectives/backend/nccl/nccl_library.h"
#include "collectives/communicator.h"
#include "reference/dtype.h"
#include "reference/status.h"

namespace shardproof {

// What is needed of the device on which the library works: cudaStreamQuery on a
// GPU. The rank's device must be current (cudaSetDevice) on the calling thread.
class NcclDevice {
 public:
  virtual ~NcclDevice() = default;
  // Whether all that was queued on `stream` is done, or the device's error.
  virtual StatusOr<bool> Done(nccl::Stream stream) = 0;
  // 64 zeroed bytes of the device for the communicator alone.
  virtual void* scratch() = 0;
};

struct NcclCommunicatorOptions {
  int rank = 0;
  int ranks = 1;
  // Of each wait: for the communicator to be made, for an operation to be
  // queued, and for it to be done.
  std::chrono::milliseconds timeout = std::chrono::seconds(60);
  // The same ranks by other means, or null. Not owned.
  const Communicator* control = nullptr;
};

// What an error says was going on.
struct NcclCall {
  std::string_view primitive = {};  // "all_to_all"; empty: none of ours.
  std::string_view function = {};   // "ncclSend and ncclRecv"
  int64_t count = 0;
  DType dtype = DType::kU8;
};

class NcclCommunicator {
 public:
  // Collective: ncclCommInitRankConfig with the `id` that all ranks share.
  static StatusOr<std::unique_ptr<NcclCommunicator>> Create(
      std::shared_ptr<const NcclLibrary> library, const nccl::UniqueId& id,
      NcclDevice& device, const NcclCommunicatorOptions& options);
  // Collective, but for one that failed: ncclCommFinalize, ncclCommDestroy. Waits
  // for the others no longer than the timeout.
  ~NcclCommunicator();
  NcclCommunicator(const NcclCommunicator&) = delete;
  NcclCommunicator& operator=(const NcclCommunicator&) = delete;

  int rank() const { return options_.rank; }
  int size() const { return options_.ranks; }
  const NcclLibrary& library() const { return *library_; }
  NcclDevice& device() const { return device_; }
  nccl::Comm handle() const { return comm_; }

  // Ok, or why the communicator is no more.
  const Status& health() const { return failure_; }

  // Takes what a function of the library returned, and returns once that call is
  // under way. Any error ends the communicator.
  Status Settle(nccl::Result result, const NcclCall& call);
  // Returns once `stream` is done. kTimeout names the operation, this rank and
  // the library's last error; kAborted where another rank gave up first.
  Status Finish(nccl::Stream stream, const NcclCall& call);

 private:
  NcclCommunicator(std::shared_ptr<const NcclLibrary> library,
                   NcclDevice& device, const NcclCommunicatorOptions& options);
  // Looks at the library's state until `done` says so.
  Status WaitUntil(const NcclCall& call,
                   const std::function<StatusOr<bool>(nccl::Result)>& done);
  // ncclCommAbort here, and the end of the control's waits everywhere.
  Status Fail(Status why);
  Status Expired(const NcclCall& call) const;
  std::string Text(const NcclCall& call) const;

  std::shared_ptr<const NcclLibrary> library_;
  NcclDevice& device_;
  const NcclCommunicatorOptions options_;
  nccl::Comm comm_ = nullptr;
  Status failure_;
};

}  // namespace shardproof

#endif  // SHARDPROOF_COLLECTIVES_BACKEND_NCCL_NCCL_COMMUNICATOR_H_
