// The worlds of the cuda and the nccl backend, from the flags.
#ifndef SHARDPROOF_TOOLS_CLI_GPU_WORLD_H_
#define SHARDPROOF_TOOLS_CLI_GPU_WORLD_H_

#include <memory>
#include <string>

#include "collectives/backend/cuda/device/gpu.h"
#include "reference/status.h"
#include "tools/cli/options.h"
#include "tools/harness/world.h"

namespace shardproof {

// The GPUs of this machine, or emulated ones: --emulate-gpus. kUnavailable, in
// one sentence: no CUDA, no driver, an old one, no GPU.
StatusOr<std::shared_ptr<cuda::GpuSystem>> OpenGpus(const Options& options);

// `backend` is "cuda" or "nccl"; the latter with --nccl-library.
StatusOr<std::unique_ptr<World>> CreateGpuWorld(
    const std::string& backend, const Options& options,
    const std::shared_ptr<cuda::GpuSystem>& gpus);

// Whether times of so many ranks say nothing of the GPUs: several on one GPU, or
// no GPU at all.
bool Emulates(cuda::GpuSystem& gpus, int ranks);

// The flags that name the GPUs and the library, for lines that repeat a run.
std::string GpuFlags(const Options& options);

}  // namespace shardproof

#endif  // SHARDPROOF_TOOLS_CLI_GPU_WORLD_H_
