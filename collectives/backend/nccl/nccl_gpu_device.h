// A stream of a GPU, and what NcclCommunicator needs of it.
#ifndef SHARDPROOF_COLLECTIVES_BACKEND_NCCL_NCCL_GPU_DEVICE_H_
#define SHARDPROOF_COLLECTIVES_BACKEND_NCCL_NCCL_GPU_DEVICE_H_

#include <memory>

#include "collectives/backend/cuda/device/gpu.h"
#include "collectives/backend/nccl/nccl_communicator.h"
#include "collectives/device.h"
#include "reference/status.h"

namespace shardproof {

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

}  // namespace shardproof

#endif  // SHARDPROOF_COLLECTIVES_BACKEND_NCCL_NCCL_GPU_DEVICE_H_
