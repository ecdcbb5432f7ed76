// The GPUs of this machine, by the CUDA runtime. It is linked statically and loads the driver itself, so that a program
// with it starts where there is neither driver nor GPU, and says so.
//
// Built without CUDA, cuda_gpu_stub.cc implements this and answers kUnavailable with the reason.
#ifndef SHARDPROOF_COLLECTIVES_BACKEND_CUDA_DEVICE_CUDA_GPU_H_
#define SHARDPROOF_COLLECTIVES_BACKEND_CUDA_DEVICE_CUDA_GPU_H_

#include <memory>

#include "collectives/backend/cuda/device/gpu.h"
#include "reference/status.h"

namespace shardproof::cuda {

// kUnavailable, in one sentence: not built, no driver, a driver that is too old, no GPU.
StatusOr<std::shared_ptr<GpuSystem>> OpenCudaGpus();

}  // namespace shardproof::cuda

#endif  // SHARDPROOF_COLLECTIVES_BACKEND_CUDA_DEVICE_CUDA_GPU_H_
