// Attention on a GPU with what this program was built with: CUDA's kernels, or none where there is no CUDA (emulated GPUs
// work there too). Apart from flash_on_gpu.h, so that tests of emulated GPUs need no nvcc.
//
//     context->Put<FlashKernels>(cuda::MakeFlashKernelsOnGpu(gpus, gpu));
#ifndef SHARDPROOF_ATTENTION_KERNELS_CUDA_DEVICE_GPU_KERNELS_H_
#define SHARDPROOF_ATTENTION_KERNELS_CUDA_DEVICE_GPU_KERNELS_H_

#include <memory>

#include "attention/kernels/cuda/device/flash_on_gpu.h"
#include "collectives/backend/cuda/device/gpu.h"

namespace shardproof::cuda {

// `gpu` is less than gpus->count(). One for each rank: its calls take turns.
std::shared_ptr<FlashKernelsOnGpu> MakeFlashKernelsOnGpu(
    std::shared_ptr<GpuSystem> gpus, int gpu);

}  // namespace shardproof::cuda

#endif  // SHARDPROOF_ATTENTION_KERNELS_CUDA_DEVICE_GPU_KERNELS_H_
