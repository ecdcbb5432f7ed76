#include "pipeline/zb_v/zb_v.h"

#include <algorithm>
#include <array>

#include "pipeline/builder.h"
#include "pipeline/registry.h"

namespace shardproof {
namespace {

// A rank's actions, of both chunks in the order of micro-batches.
class Rank {
 public:
  explicit Rank(std::vector<Action>& actions) : actions_(actions) {}

  void F(int chunk) { Add(ActionKind::kForward, chunk, forward_); }
  void I(int chunk) { Add(ActionKind::kInput, chunk, input_); }
  void W(int chunk) { Add(ActionKind::kWeight, chunk, weight_); }
  int forward(int chunk) const { return forward_[static_cast<size_t>(chunk)]; }
  int weight(int chunk) const { return weight_[static_cast<size_t>(chunk)]; }

 private:
  using Counts = std::array<int, 2>;
  void Add(ActionKind kind, int chunk, Counts& counts) {
    actions_.push_back({kind, counts[static_cast<size_t>(chunk)]++, chunk});
  }
  std::vector<Action>& actions_;
  Counts forward_ = {}, input_ = {}, weight_ = {};
};

void Build(const ScheduleShape& s, int i, Rank rank) {
  const int p = s.ranks, m = s.micro_batches;
  for (int k = 0; k < 2 * (p - i) - 1; ++k) rank.F(0);
  for (int k = 0; k < i; ++k) {
    rank.F(1);
    rank.F(0);
  }
  for (int k = 0; k < p - i; ++k) {
    rank.F(1);
    rank.I(1);
    rank.W(1);
  }
  while (rank.forward(1) < m) {
    if (rank.forward(0) < m) rank.F(0);
    rank.I(0);
    rank.W(0);
    rank.F(1);
    rank.I(1);
    rank.W(1);
  }
  for (int k = 0; k < i; ++k) {
    rank.I(0);
    rank.I(1);
  }
  for (int k = 0; k < p - i; ++k) {
    rank.I(0);
    rank.W(0);
  }
  while (rank.weight(1) < m) rank.W(1);
  while (rank.weight(0) < m) rank.W(0);
}

}  // namespace

StatusOr<Schedule> ZbVSchedule(const ScheduleShape& shape) {
  const int p = shape.ranks;
  if (shape.micro_batches < 2 * p) {
    return InvalidArgument("zb_v needs {} micro-batches for {} ranks, not {}",
                           2 * p, p, shape.micro_batches);
  }
  Schedule schedule = EmptySchedule("zb_v", shape);
  schedule.pipelines = {VStages(p)};
  for (int rank = 0; rank < p; ++rank) {
    Build(shape, rank, Rank(schedule.actions[static_cast<size_t>(rank)]));
  }
  return schedule;
}

namespace {

const RegisterSchedule kZbV(
    {.name = "zb_v",
     .what = "two chunks on each rank, down and back up; no idle time",
     .source = "Qi et al., arXiv:2405.15362",
     .build = ZbVSchedule,
     .bubble = [](const ScheduleShape&, const StageCosts&) { return 0.0; },
     .bubble_within = true,
     .peak = [](const ScheduleShape& s, const StageCosts& c,
                int) { return s.ranks * c.held_to_input; },
     .messages =
         [](const ScheduleShape& s) {
           return int64_t{4} * s.micro_batches * (s.ranks - 1);
         }});

}  // namespace

}  // namespace shardproof
