#include "attention/kernels/cuda/device/gpu_kernels.h"

#include <utility>

#include "attention/kernels/cuda/kernel_table.h"

namespace shardproof::cuda {

std::shared_ptr<FlashKernelsOnGpu> MakeFlashKernelsOnGpu(
    std::shared_ptr<GpuSystem> gpus, int gpu) {
  return std::make_shared<FlashKernelsOnGpu>(FlashGpuOptions{
      .gpus = std::move(gpus), .gpu = gpu, .find = &FindFlashKernel});
}

}  // namespace shardproof::cuda
