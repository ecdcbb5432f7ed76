// A kernel of this folder as a launch in both languages: its entry point for
// CUDA, and the same template in fibers for emulated GPUs.
//
//     GridLaunch launch = LayerLaunch(LayerKernel::kDropout, DType::kBF16,
//                                     &FindLayerKernel, {blocks, threads});
//     SetParameters(launch, dropout_args);
//
// Parameters are those that the kernel's header names, of exactly their types.
#ifndef SHARDPROOF_LAYERS_KERNELS_CUDA_DEVICE_LAYER_LAUNCH_H_
#define SHARDPROOF_LAYERS_KERNELS_CUDA_DEVICE_LAYER_LAUNCH_H_

#include <string_view>

#include "collectives/backend/cuda/device/gpu.h"
#include "collectives/backend/cuda/fiber/fiber_scheduler.h"
#include "layers/kernels/cuda/kernel_table.h"
#include "layers/kernels/cuda/launch.h"
#include "reference/dtype.h"

namespace shardproof::cuda {

// FindLayerKernel, or null where there are emulated GPUs alone: what it is in
// does not have to be linked for these.
using LayerKernelFinder = const void* (*)(LayerKernel kernel, DType dtype);

// "Normalize", ...
std::string_view Name(LayerKernel kernel);

// What a thread of an emulated GPU runs; null for other types than f32, bf16
// and f16.
using FiberBody = void (*)(FiberThread& thread, void* const* parameters);
FiberBody FindLayerKernelForFibers(LayerKernel kernel, DType dtype);

// Without parameters.
GridLaunch LayerLaunch(LayerKernel kernel, DType dtype,
                       LayerKernelFinder finder, const LaunchShape& shape);

}  // namespace shardproof::cuda

#endif  // SHARDPROOF_LAYERS_KERNELS_CUDA_DEVICE_LAYER_LAUNCH_H_
