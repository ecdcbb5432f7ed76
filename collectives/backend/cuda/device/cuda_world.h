// A world of ranks on GPUs: threads of this process, rank r on GPU r modulo the GPUs.
//
//     SP_ASSIGN_OR_RETURN(const auto gpus, OpenCudaGpus());             // or OpenEmulatedGpus
//     SP_ASSIGN_OR_RETURN(const auto world, CreateCudaWorld({.ranks = 4, .gpus = gpus}));
//     world->Run([](const Communicator& comm) { return AllReduceNative(comm, ...); });
#ifndef SHARDPROOF_COLLECTIVES_BACKEND_CUDA_DEVICE_CUDA_WORLD_H_
#define SHARDPROOF_COLLECTIVES_BACKEND_CUDA_DEVICE_CUDA_WORLD_H_

#include <functional>
#include <memory>

#include "collectives/backend/cuda/device/cuda_group.h"
#include "collectives/backend/cuda/device/gpu.h"
#include "collectives/backend/cuda/device/gpu_backend.h"
#include "collectives/backend/thread/thread_world.h"
#include "collectives/rank_context.h"
#include "reference/status.h"

namespace shardproof::cuda {

// In the context of a rank before PutServices sees it: ok, or why its world was aborted. Any thread may ask, for as long as
// it likes.
struct RankHealth {
  std::function<Status()> ask;
};

// Puts what a rank computes with into the context of its thread, where functions find it by FindService: kernels of layers,
// of attention. Called once for each rank of a world, on its thread; what it puts serves several ranks where they share it.
using PutServices = std::function<void(RankServices& context, const Place&)>;

struct CudaWorldOptions {
  int ranks = 1;
  std::shared_ptr<GpuSystem> gpus;
  CudaTuning tuning = {};
  // Null: none, and layers compute on the host.
  PutServices services = nullptr;
};

// kUnavailable: a GPU whose memory the host cannot use at the same time.
StatusOr<std::unique_ptr<ThreadWorld>> CreateCudaWorld(
    const CudaWorldOptions& options);

// What a world puts around the backend of each rank, on the rank's thread: `wrap` of ThreadWorldOptions and MpiWorldOptions.
using WrapBackend =
    std::function<std::shared_ptr<Backend>(std::shared_ptr<Backend>)>;
// The same, with where the rank lives.
using WrapOnGpu =
    std::function<std::shared_ptr<Backend>(std::shared_ptr<Backend>, Place)>;

// Ranks of any world on GPUs: the rank that is number r of its node on GPU r modulo those that its process sees.
StatusOr<WrapBackend> OnGpus(const std::shared_ptr<GpuSystem>& gpus,
                             const WrapOnGpu& wrap,
                             const PutServices& services = nullptr);
// That GPU.
int GpuOfRank(const Topology& topology, int rank, const GpuSystem& gpus);

}  // namespace shardproof::cuda

#endif  // SHARDPROOF_COLLECTIVES_BACKEND_CUDA_DEVICE_CUDA_WORLD_H_
