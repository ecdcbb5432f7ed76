#include "tools/harness/world.h"

#include "tools/harness/world_backends.h"

namespace shardproof {
namespace {

std::string Numbered(uint64_t sequence, std::string_view label) {
  return fmt::format("#{} {}", sequence, label);
}

}  // namespace

std::vector<std::string> DescribeProgress(
    const std::vector<const OpRecord*>& progress) {
  uint64_t furthest = 0;
  std::string furthest_label;
  for (const OpRecord* p : progress) {
    if (p == nullptr) continue;
    const uint64_t entered = p->entered.load(std::memory_order_acquire);
    if (entered <= furthest) continue;
    furthest = entered;
    furthest_label = std::string(p->Label().view());
  }
  std::vector<std::string> out;
  for (size_t r = 0; r < progress.size(); ++r) {
    const OpRecord* p = progress[r];
    if (p == nullptr) {
      out.push_back(fmt::format("rank {}: on another node", r));
      continue;
    }
    const uint64_t entered = p->entered.load(std::memory_order_acquire);
    const std::string label(p->Label().view());
    if (furthest == 0) {
      out.push_back(fmt::format("rank {}: in no operation yet", r));
    } else if (entered < furthest) {
      out.push_back(
          fmt::format("rank {}: never entered {} (last: {})", r,
                      Numbered(furthest, furthest_label),
                      entered == 0 ? "nothing" : Numbered(entered, label)));
    } else {
      const bool done = p->finished.load(std::memory_order_acquire) >= entered;
      out.push_back(fmt::format("rank {}: {} {}", r, done ? "left" : "is in",
                                Numbered(entered, label)));
    }
  }
  return out;
}

std::vector<std::string> DescribeActive(const ActiveCommunicator& active) {
  const Communicator comm = active.Get();
  if (!comm.valid()) return {};
  std::vector<const OpRecord*> progress;
  for (int r = 0; r < comm.size(); ++r) {
    progress.push_back(comm.backend().Progress(r));
  }
  return DescribeProgress(progress);
}

Status PublishActive(const Communicator& comm,
                     const std::shared_ptr<ActiveCommunicator>& active) {
  using Active = std::shared_ptr<ActiveCommunicator>;
  return comm
      .Attribute<Active>(kActiveAttribute,
                         [&active]() -> StatusOr<Active> { return active; })
      .status();
}

StatusOr<std::unique_ptr<World>> CreateWorld(std::string_view backend) {
  if (backend == "thread") return CreateThreadWorld();
  if (backend == "mpi") return CreateMpiWorld();
  if (backend == "cuda" || backend == "nccl") {
    return Unavailable("the {} backend is not built", backend);
  }
  return InvalidArgument(
      "there is no backend \"{}\"; there are thread, mpi, cuda and nccl",
      backend);
}

}  // namespace shardproof
