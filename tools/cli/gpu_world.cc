#include "tools/cli/gpu_world.h"

#include <fmt/format.h>

#include <utility>

#include "attention/kernels/flash_kernels.h"
#include "collectives/backend/cuda/device/cuda_gpu.h"
#include "collectives/backend/cuda/device/cuda_world.h"
#include "collectives/backend/cuda/device/emulated_gpu.h"
#include "collectives/backend/mpi/mpi_world.h"
#include "collectives/backend/nccl/nccl_library.h"
#include "collectives/backend/nccl/nccl_world.h"
#include "collectives/backend/nccl/process/rank_server.h"
#include "layers/kernels/cuda/blas/cublaslt_library.h"
#include "layers/kernels/cuda/blas/gemm_cublaslt.h"
#include "layers/kernels/cuda/kernel_table.h"
#include "layers/kernels/layer_kernels.h"
#include "tools/cli/commands.h"
#include "tools/harness/world_backends.h"

namespace shardproof {
namespace {

// Threads of this process; the kernels themselves are for fewer.
constexpr int kMaxRanks = 128;

}  // namespace

StatusOr<std::shared_ptr<cuda::GpuSystem>> OpenGpus(const Options& options) {
  if (options.emulate_gpus == 0) return cuda::OpenCudaGpus();
  if (options.require_gpu) {
    return InvalidArgument("--require-gpu and --emulate-gpus: one of the two");
  }
  // Room for a block of each of 16 ranks on one of them.
  return cuda::OpenEmulatedGpus({.count = options.emulate_gpus,
                                 .multiprocessors = 16,
                                 .seed = options.seed});
}

StatusOr<std::shared_ptr<cuda::GpuSystem>> GpusFor(const Options& options) {
  if (options.backend == "cuda" || options.backend == "nccl") {
    return OpenGpus(options);
  }
  if (options.emulate_gpus > 0 || options.require_gpu) {
    return InvalidArgument(
        "{} needs --backend cuda or --backend nccl",
        options.require_gpu ? "--require-gpu" : "--emulate-gpus");
  }
  return std::shared_ptr<cuda::GpuSystem>();
}

ExitCode RunNcclRank() {
  const Status served = ServeNcclRank([](int emulated) {
    Options options;
    options.emulate_gpus = emulated;
    return OpenGpus(options);
  });
  return served.ok() ? kExitPass : Refuse(served);
}

namespace {

// kUnavailable where there is none for these GPUs.
StatusOr<std::shared_ptr<const CublasLtLibrary>> LibraryFor(
    cuda::GpuSystem& gpus, const Options& options) {
  if (gpus.emulated() && options.cublaslt_library.empty()) {
    return Unavailable("the host multiplies on emulated GPUs");
  }
  return CublasLtLibrary::Load(options.cublaslt_library);
}

}  // namespace

StatusOr<std::shared_ptr<const GpuServices>> GpuServices::Create(
    const std::shared_ptr<cuda::GpuSystem>& gpus, const Options& options) {
  auto made = std::make_shared<GpuServices>();
  const auto library = LibraryFor(*gpus, options);
  if (!library.ok() && !options.cublaslt_library.empty()) {
    return library.status();
  }
  made->products_ = library.ok() ? (*library)->Describe()
                                 : std::string(library.status().message());
  // Ranks of several GPUs compute the same product, whose bits must agree: an
  // algorithm that won a race on one of them may not have won on another.
  const CublasLtGemmOptions how{.time =
                                    gpus->count() == 1 && !HasLauncherPeers()};
  for (int gpu = 0; gpu < gpus->count(); ++gpu) {
    std::unique_ptr<CublasLtGemm> gemm;
    if (library.ok()) {
      SP_ASSIGN_OR_RETURN(gemm, CublasLtGemm::Create(gpus, gpu, *library, how));
    }
    made->layers_.push_back(std::make_shared<cuda::LayerKernelsOnGpu>(
        cuda::GpuLanesOptions{.gpus = gpus, .gpu = gpu}, &cuda::FindLayerKernel,
        std::move(gemm)));
    made->attention_.push_back(cuda::MakeFlashKernelsOnGpu(gpus, gpu));
  }
  return std::shared_ptr<const GpuServices>(std::move(made));
}

void GpuServices::Put(RankServices& context, const cuda::Place& place) const {
  const auto gpu = static_cast<size_t>(place.gpu);
  const auto* const found = context.Find<cuda::RankHealth>();
  const cuda::WorldHealth health = found == nullptr ? nullptr : found->ask;
  context.Put<LayerKernels>(layers_[gpu]->ForWorld(health));
  context.Put<FlashKernels>(attention_[gpu]->ForWorld(health));
}

std::string GpuServices::Describe() const {
  cuda::LayerKernelCounts counts;
  for (const auto& kernels : layers_) counts += kernels->counts();
  int64_t launches = 0, calls = 0, shapes = 0;
  for (const auto& kernels : attention_) {
    const cuda::FlashGpuCounts of_gpu = kernels->counts();
    launches += of_gpu.launches;
    calls += of_gpu.host_calls;
    shapes += of_gpu.host_shapes;
  }
  return fmt::format(
      "layer kernels: {} launches on GPUs, {} calls on the host; attention: {} "
      "launches, {} calls and {} shapes on the host; products: {}",
      counts.launches, counts.left_to_host, launches, calls, shapes, products_);
}

StatusOr<std::unique_ptr<World>> CreateGpuWorld(
    const std::string& backend, const Options& options,
    const std::shared_ptr<cuda::GpuSystem>& gpus,
    const std::shared_ptr<const GpuServices>& services) {
  const cuda::PutServices put = [services](RankServices& context,
                                           const cuda::Place& place) {
    services->Put(context, place);
  };
  if (backend == "cuda") {
    if (HasLauncherPeers()) {
      return InvalidArgument(
          "the ranks of --backend cuda are threads of one process: start it "
          "without mpirun or srun, with --ranks");
    }
    return CreateThreadsWorld("cuda", kMaxRanks, [gpus, put](int ranks) {
      return cuda::CreateCudaWorld(
          {.ranks = ranks, .gpus = gpus, .services = put});
    });
  }
  SP_ASSIGN_OR_RETURN(const std::shared_ptr<const NcclLibrary> library,
                      NcclLibrary::Load(options.nccl_library));
  NcclWorldOptions nccl{.gpus = gpus,
                        .library = library,
                        .services = put,
                        .rank_command = {"/proc/self/exe", kNcclRankCommand}};
  // Now, and not with the first case, what the whole run cannot have.
  SP_ASSIGN_OR_RETURN(const cuda::WrapBackend wrap, NcclOnGpus(nccl));
  if (HasLauncherPeers()) return CreateProcessesWorld("nccl", {.wrap = wrap});
  return CreateThreadsWorld("nccl", kMaxRanks, [nccl](int ranks) mutable {
    nccl.ranks = ranks;
    return CreateNcclWorld(nccl);
  });
}

StatusOr<int> RanksWithGpus(World& world,
                            const std::shared_ptr<cuda::GpuSystem>& gpus) {
  if (gpus->emulated()) return 0;
  if (!world.of_processes()) return gpus->count();
  int ranks = world.max_ranks();
  SP_RETURN_IF_ERROR(world.Run(ranks, [&](const Communicator& comm) -> Status {
    const auto& backend = dynamic_cast<cuda::GpuBackend&>(comm.backend());
    SP_ASSIGN_OR_RETURN(const cuda::GpuMates mates,
                        cuda::FindGpuMates(comm, backend.place()));
    if (mates.second >= 0) ranks = mates.second;
    return OkStatus();
  }));
  return ranks;
}

std::string GpuFlags(const Options& options) {
  std::string flags;
  if (options.emulate_gpus > 0) {
    flags += fmt::format(" --emulate-gpus {}", options.emulate_gpus);
  }
  if (!options.nccl_library.empty()) {
    flags += " --nccl-library " + options.nccl_library;
  }
  if (!options.cublaslt_library.empty()) {
    flags += " --cublaslt-library " + options.cublaslt_library;
  }
  return flags;
}

}  // namespace shardproof
