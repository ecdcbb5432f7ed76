#include "collectives/backend/cuda/device/cuda_world.h"

#include <utility>

#include "collectives/backend/cuda/device/cuda_backend.h"

namespace shardproof::cuda {

StatusOr<std::unique_ptr<ThreadWorld>> CreateGpuWorld(
    int ranks, const std::shared_ptr<GpuSystem>& gpus,
    const std::function<std::shared_ptr<Backend>(std::shared_ptr<Backend>,
                                                 Place)>& wrap,
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
  return ThreadWorld::Create(
      {.ranks = ranks,
       .wrap = [gpus, kept, wrap, services](std::shared_ptr<Backend> inner) {
         const int gpu = inner->rank() % gpus->count();
         Place place{.gpus = gpus, .gpu = gpu, .kept = kept};
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
       }});
}

StatusOr<std::unique_ptr<ThreadWorld>> CreateCudaWorld(
    const CudaWorldOptions& options) {
  auto groups = std::make_shared<CudaGroups>(options.gpus, options.tuning);
  return CreateGpuWorld(
      options.ranks, options.gpus,
      [groups](std::shared_ptr<Backend> inner, Place place) {
        return std::make_shared<CudaBackend>(std::move(inner), std::move(place),
                                             groups);
      },
      options.services);
}

}  // namespace shardproof::cuda
