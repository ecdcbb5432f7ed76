#include "collectives/backend/nccl/nccl_world.h"

#include <utility>

#include "collectives/backend/nccl/nccl_backend.h"

namespace shardproof {

StatusOr<cuda::WrapBackend> NcclOnGpus(const NcclWorldOptions& options) {
  const NcclLibrary& library = *options.library;
  if (options.gpus->emulated() && !library.emulated()) {
    return Unavailable(
        "{} works on GPUs only: emulated ones take a library that is made for "
        "them, by --nccl-library",
        library.Describe());
  }
  if (!options.gpus->emulated() && library.emulated()) {
    return Unavailable("{} works on emulated GPUs only: --emulate-gpus",
                       library.Describe());
  }
  const auto shared = std::make_shared<const NcclShared>(
      NcclShared{.library = options.library,
                 .timeout = options.timeout,
                 .rank_command = options.rank_command});
  return cuda::OnGpus(
      options.gpus,
      [shared](std::shared_ptr<Backend> inner, cuda::Place place) {
        return std::make_shared<NcclBackend>(std::move(inner), std::move(place),
                                             shared);
      },
      options.services);
}

StatusOr<std::unique_ptr<ThreadWorld>> CreateNcclWorld(
    const NcclWorldOptions& options) {
  SP_ASSIGN_OR_RETURN(cuda::WrapBackend wrap, NcclOnGpus(options));
  return ThreadWorld::Create({.ranks = options.ranks, .wrap = std::move(wrap)});
}

}  // namespace shardproof
