#include "layers/kernels/cuda/benchmark/copy_launch.h"

#include "collectives/backend/cuda/fiber/fiber_context.h"
#include "layers/kernels/cuda/benchmark/copy.h"

namespace shardproof::cuda {

GridLaunch CopyLaunch(void* to, const void* from, size_t bytes,
                      const LaunchShape& shape) {
  GridLaunch launch;
  launch.name = "Copy";
  launch.kernel = FindCopyKernel();
  launch.emulated = [](FiberThread& thread, void* const* parameters) {
    FiberContext<> context(thread);
    CopyVectors(context, *static_cast<const CopyArgs*>(parameters[0]));
  };
  launch.blocks = shape.blocks;
  launch.threads = shape.threads;
  SetParameters(launch,
                CopyArgs{.vectors = static_cast<int64_t>(bytes / kVectorBytes),
                         .from = static_cast<const Vector*>(from),
                         .to = static_cast<Vector*>(to)});
  return launch;
}

int64_t L2Bytes(const GpuSystem& gpus, int gpu) {
  return gpus.emulated() ? 0 : L2BytesOfCudaGpu(gpu);
}

}  // namespace shardproof::cuda
