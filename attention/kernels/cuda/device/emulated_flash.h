// The kernels of attention for emulated GPUs: what ../kernel_table.h is for CUDA. The same templates, over
// fiber_tile_context.h.
//
// A launch for an emulated GPU has at most kMostEmulatedBlocks blocks, each of which works on every n-th of those that the
// work has, one after the other: every CUDA thread is a fiber with a stack, and blocks know nothing of one another.
#ifndef SHARDPROOF_ATTENTION_KERNELS_CUDA_DEVICE_EMULATED_FLASH_H_
#define SHARDPROOF_ATTENTION_KERNELS_CUDA_DEVICE_EMULATED_FLASH_H_

#include "attention/kernels/cuda/kernel_table.h"
#include "collectives/backend/cuda/fiber/fiber_scheduler.h"
#include "reference/dtype.h"

namespace shardproof::cuda {

inline constexpr int kMostEmulatedBlocks = 4;

struct EmulatedFlashKernel {
  // As GridLaunch takes it: its one parameter is that of the kernel.
  void (*body)(FiberThread& thread, void* const* parameters) = nullptr;
  // The kernel's shared memory, and where the lanes of each warp meet.
  int fiber_bytes = 0;
};

// None for kDelta and kWarpgroupForward, which nobody launches here, and for other types and head dimensions than ../kernel_table.h has.
EmulatedFlashKernel FindEmulatedFlashKernel(FlashKernel kernel, DType dtype,
                                            int head_dim);

}  // namespace shardproof::cuda

#endif  // SHARDPROOF_ATTENTION_KERNELS_CUDA_DEVICE_EMULATED_FLASH_H_
