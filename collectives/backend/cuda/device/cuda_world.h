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

// A world of threads with a backend around that of each rank: `wrap` is called with it and where the rank lives.
StatusOr<std::unique_ptr<ThreadWorld>> CreateGpuWorld(
    int ranks, const std::shared_ptr<GpuSystem>& gpus,
    const std::function<std::shared_ptr<Backend>(std::shared_ptr<Backend>,
                                                 Place)>& wrap,
    const PutServices& services = nullptr);

}  // namespace shardproof::cuda

#endif  // SHARDPROOF_COLLECTIVES_BACKEND_CUDA_DEVICE_CUDA_WORLD_H_
