#include "collectives/backend/cuda/device/gpu_backend.h"

#include <fmt/format.h>

#include <map>
#include <numeric>
#include <string>
#include <vector>

namespace shardproof::cuda {

StatusOr<GpuMates> FindGpuMates(const Communicator& comm, const Place& place) {
  SP_ASSIGN_OR_RETURN(
      const std::vector<std::string> gpus,
      comm.ExchangeControl(fmt::format(
          "{} {}", place.machine, place.gpus->gpu(place.gpu).info().identity)));
  std::map<std::string, int> first_on;
  for (int r = 0; r < comm.size(); ++r) {
    const auto [at, is_first] =
        first_on.try_emplace(gpus[static_cast<size_t>(r)], r);
    if (!is_first) return GpuMates{at->second, r};
  }
  return GpuMates();
}

Topology Apart(int ranks) {
  Topology topology{.node_of = std::vector<int>(static_cast<size_t>(ranks)),
                    .nodes = ranks};
  std::iota(topology.node_of.begin(), topology.node_of.end(), 0);
  return topology;
}

StatusOr<std::shared_ptr<Backend>> GpuBackend::Split(int color, int key) {
  SP_ASSIGN_OR_RETURN(std::shared_ptr<Backend> part, inner_->Split(color, key));
  if (part == nullptr) return part;
  return Around(std::move(part));
}

StatusOr<Buffer> GpuBackend::Allocate(size_t bytes) {
  SP_ASSIGN_OR_RETURN(Buffer plain, gpu().Allocate(bytes));
  std::byte* const data = plain.data();
  auto held = std::make_shared<Buffer>(std::move(plain));
  std::shared_ptr<void> owner(
      data, [held, inner = inner_, kept = place_.kept](void* /*data*/) {
        if (!inner->health().ok()) kept->Keep(std::move(*held));
      });
  return Buffer(std::move(owner), data, bytes);
}

}  // namespace shardproof::cuda
