// The copy of copy.h as a launch, in both languages.
//
//     SP_RETURN_IF_ERROR(stream.Launch(CopyLaunch(to, from, bytes, {blocks, threads})));
#ifndef SHARDPROOF_LAYERS_KERNELS_CUDA_BENCHMARK_COPY_LAUNCH_H_
#define SHARDPROOF_LAYERS_KERNELS_CUDA_BENCHMARK_COPY_LAUNCH_H_

#include <cstddef>
#include <cstdint>

#include "collectives/backend/cuda/device/gpu.h"
#include "layers/kernels/cuda/launch.h"

namespace shardproof::cuda {

// `bytes`: a multiple of 16, as both addresses are. They do not overlap.
GridLaunch CopyLaunch(void* to, const void* from, size_t bytes,
                      const LaunchShape& shape);

// Of GPU `gpu`; 0: not known, as of an emulated one.
int64_t L2Bytes(const GpuSystem& gpus, int gpu);

}  // namespace shardproof::cuda

#endif  // SHARDPROOF_LAYERS_KERNELS_CUDA_BENCHMARK_COPY_LAUNCH_H_
