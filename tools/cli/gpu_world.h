// The worlds of the cuda and the nccl backend, from the flags.
#ifndef SHARDPROOF_TOOLS_CLI_GPU_WORLD_H_
#define SHARDPROOF_TOOLS_CLI_GPU_WORLD_H_

#include <memory>
#include <string>
#include <vector>

#include "attention/kernels/cuda/device/gpu_kernels.h"
#include "collectives/backend/cuda/device/gpu.h"
#include "collectives/backend/cuda/device/gpu_backend.h"
#include "collectives/rank_context.h"
#include "layers/kernels/cuda/device/layer_kernels_on_gpu.h"
#include "reference/status.h"
#include "tools/cli/exit_code.h"
#include "tools/cli/options.h"
#include "tools/harness/world.h"

namespace shardproof {

// The GPUs of this machine, or emulated ones: --emulate-gpus. kUnavailable, in
// one sentence: no CUDA, no driver, an old one, no GPU.
StatusOr<std::shared_ptr<cuda::GpuSystem>> OpenGpus(const Options& options);

// Those of --backend: null where it has none. kInvalidArgument: a flag that says
// something of GPUs there, which would be believed.
StatusOr<std::shared_ptr<cuda::GpuSystem>> GpusFor(const Options& options);

// `shardproof nccl-rank`, which the nccl backend starts for each rank where several
// share a GPU: kExitUsage where a person did. Not listed by --help.
ExitCode RunNcclRank();

// What ranks on GPUs compute with, shared by those of a GPU and by all worlds.
class GpuServices {
 public:
  // An error only of a library that was asked for: without one the host
  // multiplies, and Describe says why.
  static StatusOr<std::shared_ptr<const GpuServices>> Create(
      const std::shared_ptr<cuda::GpuSystem>& gpus, const Options& options);

  // Into the context of a rank that lives at `place`.
  void Put(RankServices& context, const cuda::Place& place) const;
  // "layer kernels: 1234 launches on GPUs, 56 calls on the host; attention: 12
  // launches, 3 calls and 4 shapes on the host; products: ...", so far.
  std::string Describe() const;

 private:
  std::vector<std::shared_ptr<cuda::LayerKernelsOnGpu>> layers_;  // By GPU.
  std::vector<std::shared_ptr<cuda::FlashKernelsOnGpu>> attention_;
  std::string products_;  // Who multiplies.
};

// `backend` is "cuda" or "nccl"; the latter with --nccl-library, and with a launcher's
// processes as ranks where there are some. kInvalidArgument: cuda has threads alone.
StatusOr<std::unique_ptr<World>> CreateGpuWorld(
    const std::string& backend, const Options& options,
    const std::shared_ptr<cuda::GpuSystem>& gpus,
    const std::shared_ptr<const GpuServices>& services);

// The most ranks whose times say something of the GPUs: each has one for itself. 0
// where GPUs are emulated. Collective over the processes of `world`.
StatusOr<int> RanksWithGpus(World& world,
                            const std::shared_ptr<cuda::GpuSystem>& gpus);

// The flags that name the GPUs and the library, for lines that repeat a run.
std::string GpuFlags(const Options& options);

}  // namespace shardproof

#endif  // SHARDPROOF_TOOLS_CLI_GPU_WORLD_H_
