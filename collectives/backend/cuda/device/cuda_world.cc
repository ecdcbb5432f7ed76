#include "collectives/backend/cuda/device/cuda_world.h"

#include <algorithm>
#include <utility>

#include "collectives/backend/cuda/device/cuda_backend.h"

namespace shardproof::cuda {

int GpuOfRank(const Topology& topology, int rank, const GpuSystem& gpus) {
  const auto mine = topology.node_of.begin() + rank;
  const auto before = std::count(topology.node_of.begin(), mine, *mine);
  return static_cast<int>(before) % gpus.count();
}

StatusOr<WrapBackend> OnGpus(const std::shared_ptr<GpuSystem>& gpus,
                             const WrapOnGpu& wrap,
                             const PutServices& services) {
  for (int i = 0; i < gpus->count(); ++i) {
    if (gpus->gpu(i).info().managed_memory) continue;
    return Unavailable(
        "host and {} cannot use memory at the same time, which everything here "
        "needs (concurrentManagedAccess: Linux and a GPU of compute capability "
        "6.0 or later)",
        NameOf(*gpus, i));
  }
  auto kept = std::make_shared<KeptBuffers>();
  return WrapBackend(
      [gpus, kept, wrap, services](std::shared_ptr<Backend> inner) {
        const int gpu = GpuOfRank(inner->topology(), inner->rank(), *gpus);
        Place place{
            .gpus = gpus,
            .gpu = gpu,
            .machine =
                inner->topology().node_of[static_cast<size_t>(inner->rank())],
            .kept = kept};
        if (services != nullptr) {
          auto context = std::make_shared<RankServices>();
          auto health = std::make_shared<RankHealth>();
          health->ask = [weak = std::weak_ptr<Backend>(inner)] {
            const std::shared_ptr<Backend> rank = weak.lock();
            return rank == nullptr ? OkStatus() : rank->health();
          };
          context->Put<RankHealth>(std::move(health));
          services(*context, place);
          SetCurrentContext(std::move(context));
        }
        return wrap(std::move(inner), std::move(place));
      });
}

StatusOr<std::unique_ptr<ThreadWorld>> CreateCudaWorld(
    const CudaWorldOptions& options) {
  auto groups = std::make_shared<CudaGroups>(options.gpus, options.tuning);
  SP_ASSIGN_OR_RETURN(
      WrapBackend wrap,
      OnGpus(
          options.gpus,
          [groups](std::shared_ptr<Backend> inner, Place place) {
            return std::make_shared<CudaBackend>(std::move(inner),
                                                 std::move(place), groups);
          },
          options.services));
  return ThreadWorld::Create({.ranks = options.ranks, .wrap = std::move(wrap)});
}

}  // namespace shardproof::cuda
