#include "tools/harness/world.h"

#include <algorithm>
#include <iterator>
#include <map>

#include "collectives/parts.h"
#include "tools/harness/world_backends.h"

namespace shardproof {
namespace {

std::string Numbered(uint64_t sequence, std::string_view label) {
  return fmt::format("#{} {}", sequence, label);
}

}  // namespace

std::vector<std::string> DescribeProgress(
    const std::vector<const OpRecord*>& progress,
    const std::vector<int>& numbers) {
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
  for (size_t i = 0; i < progress.size(); ++i) {
    const int r = numbers.empty() ? static_cast<int>(i) : numbers[i];
    const OpRecord* p = progress[i];
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

namespace {

using Progress = std::vector<const OpRecord*>;

Progress ProgressOf(const Backend& backend) {
  Progress progress;
  for (int r = 0; r < backend.size(); ++r) {
    progress.push_back(backend.Progress(r));
  }
  return progress;
}

bool UnderWay(const OpRecord* p) {
  return p != nullptr && p->finished.load(std::memory_order_acquire) <
                             p->entered.load(std::memory_order_acquire);
}

// A group of ranks, as far as the ranks of this process know of it.
struct Group {
  std::shared_ptr<Backend> backend;
  // By place in the group; -1: a rank of another process.
  std::vector<int> numbers;
};

// Those that the ranks have split from what they work in. Members of a group
// find the same records.
std::vector<Group> GroupsOf(const std::map<int, Communicator>& of_rank) {
  std::vector<Group> groups;
  for (const auto& [rank, comm] : of_rank) {
    for (const std::shared_ptr<Backend>& part : LivingParts(comm)) {
      auto found =
          std::find_if(groups.begin(), groups.end(), [&](const Group& g) {
            return ProgressOf(*g.backend) == ProgressOf(*part);
          });
      if (found == groups.end()) {
        groups.push_back(
            {part, std::vector<int>(static_cast<size_t>(part->size()), -1)});
        found = std::prev(groups.end());
      }
      found->numbers[static_cast<size_t>(part->rank())] = rank;
    }
  }
  return groups;
}

}  // namespace

std::vector<std::string> DescribeActive(const ActiveCommunicator& active) {
  const std::map<int, Communicator> of_rank = active.Get();
  if (of_rank.empty()) return {};
  const Progress all = ProgressOf(of_rank.begin()->second.backend());
  std::vector<std::string> lines = DescribeProgress(all);
  bool working = std::find(all.begin(), all.end(), nullptr) == all.end() &&
                 std::none_of(all.begin(), all.end(), UnderWay);
  for (const Group& group : GroupsOf(of_rank)) {
    const Progress progress = ProgressOf(*group.backend);
    if (std::none_of(progress.begin(), progress.end(), UnderWay)) continue;
    working = false;
    const std::vector<int>& numbers = group.numbers;
    const bool known =
        std::find(numbers.begin(), numbers.end(), -1) == numbers.end();
    // Else places in the group have to do.
    const auto sentences =
        DescribeProgress(progress, known ? numbers : std::vector<int>());
    lines.push_back(
        fmt::format("in a group of {}: {}",
                    known ? fmt::format("ranks {}", fmt::join(numbers, ", "))
                          : fmt::format("{} ranks, by place", numbers.size()),
                    fmt::join(sentences, "; ")));
  }
  if (working) {
    lines.emplace_back(
        "no rank is in an operation: what takes this long is done by each rank "
        "alone, such as making inputs, the reference or comparing results");
  }
  return lines;
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
  if (backend == "mpi") return CreateProcessesWorld("mpi");
  if (backend == "cuda" || backend == "nccl") {
    return Unavailable(
        "the {} backend is a matter of the program shardproof: verify "
        "--backend {}",
        backend, backend);
  }
  return InvalidArgument(
      "there is no backend \"{}\"; there are thread, mpi, cuda and nccl",
      backend);
}

}  // namespace shardproof
