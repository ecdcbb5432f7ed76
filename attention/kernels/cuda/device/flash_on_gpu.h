// The kernels of attention on the GPU of a rank, emulated or not: what FlashAttention::Create finds in the context of a
// rank (collectives/rank_context.h), so that every scheme of attention/ computes there and knows nothing of it.
//
//     SP_ASSIGN_OR_RETURN(const auto gpus, OpenCudaGpus());
//     context->Put<FlashKernels>(MakeFlashKernelsOnGpu(gpus, rank % gpus->count()));         // gpu_kernels.h
//
// An attention of bf16 or f16 with a head_dim of 64 or 128 is the GPU's, any other the host's. Of those of the GPU, the
// host does the calls that kernels cannot do (flash_work.h: documents); both are counted. Arithmetic is that of the
// kernels (../README.md): exponentials and dS are rounded to the type of the tensors, whatever the host's machine does.
//
// A call returns once its kernels are done. Tensors in memory that the GPU cannot address are copied to where it can, and
// results back (flash_operands.h): on a real machine this and the way of managed pages are part of the time.
//
// Create asks for all memory: room for copies of all tensors of the largest call on the GPU, and what the host's own
// attention works in. Managed memory takes up none of a real GPU until it is touched.
//
// Errors of calls beside those of FlashAttention: those of the GPU, in one sentence that names it; that of a world which is
// aborted while kernels run; kTimeout where kernels do not end, after which they may still write and every call on this
// GPU's service gets that answer.
//
// Delta and merges are the host's: flash.h has no kernels of theirs. Rejected: falling back to the host where a launch
// fails, which would hide that a GPU is broken; splitting calls by document, before someone has measured that it pays.
#ifndef SHARDPROOF_ATTENTION_KERNELS_CUDA_DEVICE_FLASH_ON_GPU_H_
#define SHARDPROOF_ATTENTION_KERNELS_CUDA_DEVICE_FLASH_ON_GPU_H_

#include <chrono>
#include <cstdint>
#include <memory>

#include "attention/kernels/cuda/kernel_table.h"
#include "attention/kernels/flash.h"
#include "attention/kernels/flash_kernels.h"
#include "collectives/backend/cuda/device/gpu.h"
#include "reference/dtype.h"
#include "reference/status.h"

namespace shardproof::cuda {

struct FlashGpuOptions {
  std::shared_ptr<GpuSystem> gpus;
  int gpu = 0;
  // FindFlashKernel: of kernel_table.cc with CUDA or with its stub.
  FlashKernelEntry (*find)(FlashKernel kernel, DType dtype,
                           int head_dim) = nullptr;
  // How long a call waits for its kernels. Fibers are slow.
  std::chrono::milliseconds timeout = std::chrono::minutes(10);
  // And from the time on when its world is known to be aborted.
  std::chrono::milliseconds grace = std::chrono::seconds(5);
};

struct FlashGpuCounts {
  int64_t launches = 0;      // Of kernels.
  int64_t gpu_calls = 0;     // Forward and Backward that the GPU did,
  int64_t host_calls = 0;    // and those that the host did in its place.
  int64_t host_shapes = 0;   // Attentions that are the host's altogether.
  int64_t staged_bytes = 0;  // Copied to where the GPU addresses them, or back.
};

class FlashGpu;

class FlashKernelsOnGpu : public FlashKernels {
 public:
  explicit FlashKernelsOnGpu(const FlashGpuOptions& options);

  // The same for a rank of a world: what it waits for ends soon after `health` says that the world is aborted, with that
  // error.
  std::shared_ptr<FlashKernelsOnGpu> ForWorld(WorldHealth health) const;

  // Null for what is left to the host. kOutOfMemory, and errors of the GPU.
  StatusOr<std::unique_ptr<FlashAttention>> Create(
      const FlashShape& shape) override;
  // Of all worlds, since this was made.
  FlashGpuCounts counts() const;

 private:
  FlashKernelsOnGpu(std::shared_ptr<FlashGpu> gpu, WorldHealth health);

  const std::shared_ptr<FlashGpu> gpu_;  // The attentions keep it too.
  const WorldHealth health_;
};

}  // namespace shardproof::cuda

#endif  // SHARDPROOF_ATTENTION_KERNELS_CUDA_DEVICE_FLASH_ON_GPU_H_
