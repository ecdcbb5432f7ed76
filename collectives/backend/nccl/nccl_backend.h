// One rank's end of a communicator of the nccl backend.
#ifndef SHARDPROOF_COLLECTIVES_BACKEND_NCCL_NCCL_BACKEND_H_
#define SHARDPROOF_COLLECTIVES_BACKEND_NCCL_NCCL_BACKEND_H_

#include <chrono>
#include <memory>
#include <string_view>

#include "collectives/backend/cuda/device/gpu_backend.h"
#include "collectives/backend/nccl/nccl_communicator.h"
#include "collectives/communicator.h"

namespace shardproof {

// What all communicators of a world have in common.
struct NcclShared {
  std::shared_ptr<const NcclLibrary> library;
  std::chrono::milliseconds timeout;
};

// A stream of a GPU, and what NcclCommunicator needs of it.
class NcclGpuDevice final : public NcclDevice {
 public:
  // With `gpu` as the thread's current one.
  static StatusOr<std::unique_ptr<NcclGpuDevice>> Create(cuda::Gpu& gpu);
  StatusOr<bool> Done(nccl::Stream /*stream*/) override {
    return stream_->Done();
  }
  void* scratch() override { return scratch_.data(); }
  nccl::Stream stream() { return stream_->handle(); }

 private:
  Buffer scratch_;
  std::unique_ptr<cuda::GpuStream> stream_;
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
  // Collective: the library's communicator.
  Status Open();
  Status CheckGpus() const;
  Status CheckBuffers(const NativeRequest& request) const;

  const std::shared_ptr<const NcclShared> shared_;
  // The same ranks, as threads: for the bootstrap, and to learn of an abort.
  const Communicator control_;
  bool opened_ = false;
  Status refused_;  // Why there is none.
  std::unique_ptr<NcclGpuDevice> device_;
  std::unique_ptr<NcclCommunicator> nccl_;  // Goes first.
};

}  // namespace shardproof

#endif  // SHARDPROOF_COLLECTIVES_BACKEND_NCCL_NCCL_BACKEND_H_
