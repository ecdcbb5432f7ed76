// One rank's end of a communicator of the nccl backend.
#ifndef SHARDPROOF_COLLECTIVES_BACKEND_NCCL_NCCL_BACKEND_H_
#define SHARDPROOF_COLLECTIVES_BACKEND_NCCL_NCCL_BACKEND_H_

#include <chrono>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "collectives/backend/cuda/device/gpu_backend.h"
#include "collectives/backend/nccl/nccl_communicator.h"
#include "collectives/backend/nccl/nccl_gpu_device.h"
#include "collectives/backend/nccl/process/rank_process.h"
#include "collectives/communicator.h"

namespace shardproof {

// What all communicators of a world have in common.
struct NcclShared {
  std::shared_ptr<const NcclLibrary> library;
  std::chrono::milliseconds timeout;
  std::vector<std::string> rank_command;  // See NcclWorldOptions.
};

class NcclBackend final : public cuda::GpuBackend {
 public:
  NcclBackend(std::shared_ptr<Backend> inner, cuda::Place place,
              std::shared_ptr<const NcclShared> shared);

  std::string_view name() const override { return "nccl"; }
  Status Native(const NativeRequest& request) override;

 protected:
  std::shared_ptr<Backend> Around(std::shared_ptr<Backend> part) override;

 private:
  // Collective: the library's communicator, here or in a process of its own.
  Status Open();
  Status OpenHere();
  Status OpenApart();
  // kUnsupported: ranks share a GPU, which the library does not take.
  Status CheckGpus() const;
  Status CheckBuffers(const NativeRequest& request) const;

  const std::shared_ptr<const NcclShared> shared_;
  // The same ranks, by the host: for the bootstrap, and to learn of an abort.
  const Communicator control_;
  bool opened_ = false;
  Status refused_;  // Why there is none.
  std::unique_ptr<NcclGpuDevice> device_;
  std::unique_ptr<NcclCommunicator> nccl_;  // Goes first.
  std::unique_ptr<NcclRankProcess> apart_;  // Instead of these two.
};

}  // namespace shardproof

#endif  // SHARDPROOF_COLLECTIVES_BACKEND_NCCL_NCCL_BACKEND_H_
