#include "pipeline/dualpipe/dualpipe.h"

#include <algorithm>
#include <deque>

#include "pipeline/registry.h"

namespace shardproof {
namespace {

// A rank's actions, of both directions in the order of micro-batches; weights in
// the order of the inputs that they belong to.
class Rank {
 public:
  Rank(const std::array<Direction, 2>& directions, std::vector<Action>& actions)
      : directions_(directions), actions_(actions) {}

  void F(size_t direction) { Add(ActionKind::kForward, direction, forward_); }
  void B(size_t direction) { Add(ActionKind::kBackward, direction, backward_); }
  void I(size_t direction) {
    Add(ActionKind::kInput, direction, backward_);
    waiting_.push_back(actions_.back());
  }
  // F of a direction together with B of the other.
  void Pair(size_t direction) {
    F(direction);
    actions_.back().with_next = true;
    B(1 - direction);
  }
  // The oldest that waits.
  void W() {
    Action oldest = waiting_.front();
    waiting_.pop_front();
    oldest.kind = ActionKind::kWeight;
    actions_.push_back(oldest);
  }

 private:
  using Counts = std::array<int, 2>;
  void Add(ActionKind kind, size_t direction, Counts& counts) {
    const Direction& d = directions_[direction];
    actions_.push_back({kind, d.first + counts[direction]++, d.chunk});
  }
  const std::array<Direction, 2>& directions_;
  std::vector<Action>& actions_;
  std::deque<Action> waiting_;
  Counts forward_ = {}, backward_ = {};
};

}  // namespace

void AddDualPipeActions(int i, int h, int each,
                        const std::array<Direction, 2>& directions,
                        std::vector<Action>& actions) {
  Rank rank(directions, actions);
  for (int k = 0; k < 2 * (h - i - 1); ++k) rank.F(0);
  for (int k = 0; k < i + 1; ++k) {
    rank.F(0);
    rank.F(1);
  }
  for (int k = 0; k < h - i - 1; ++k) {
    rank.I(1);
    rank.W();
    rank.F(1);
  }
  for (int k = 0; k < each - 2 * h + i + 1; ++k) {
    if (k == 0 && i == h - 1) {
      rank.F(0);
      rank.B(1);
    } else {
      rank.Pair(0);
    }
    rank.Pair(1);
  }
  for (int k = 0; k < h - i - 1; ++k) {
    rank.B(1);
    rank.Pair(1);
  }
  // Weights wait from the middle on.
  for (int k = 0; k < 2 * (i + 1); ++k) {
    const size_t direction = k % 2 == 0 ? 1 : 0;
    if (k < i + 1) {
      rank.B(direction);
    } else {
      rank.I(direction);
    }
  }
  for (int k = 0; k < h - i - 1; ++k) {
    rank.W();
    rank.I(0);
  }
  for (int k = 0; k < i + 1; ++k) rank.W();
}

double DualPipeBubble(int h, const StageCosts& c) {
  const double chunk = c.overlapped ? *c.overlapped + c.input - 2 * c.weight
                                    : c.forward + c.input - c.weight;
  return (h - 1) * chunk;
}

StatusOr<Schedule> DualPipeSchedule(const ScheduleShape& shape) {
  const int p = shape.ranks, m = shape.micro_batches;
  if (p % 2 != 0) {
    return InvalidArgument("dualpipe needs an even number of ranks, not {}", p);
  }
  if (m % 2 != 0 || m < 2 * p) {
    return InvalidArgument(
        "dualpipe needs an even number of micro-batches, at least {} for {} "
        "ranks, not {}",
        2 * p, p, m);
  }
  Schedule schedule;
  schedule.name = "dualpipe";
  schedule.micro_batches = m;
  schedule.pipelines = OppositeStages(p);
  schedule.pipeline_of.assign(static_cast<size_t>(m), 0);
  std::fill(schedule.pipeline_of.begin() + m / 2, schedule.pipeline_of.end(),
            1);
  schedule.actions.resize(static_cast<size_t>(p));
  const Direction down = {0, 0}, up = {1, m / 2};
  for (int rank = 0; rank < p; ++rank) {
    std::vector<Action>& actions = schedule.actions[static_cast<size_t>(rank)];
    if (rank < p / 2) {
      AddDualPipeActions(rank, p / 2, m / 2, {down, up}, actions);
    } else {
      AddDualPipeActions(p - 1 - rank, p / 2, m / 2, {up, down}, actions);
    }
  }
  return schedule;
}

namespace {

const RegisterSchedule kDualPipe(
    {.name = "dualpipe",
     .what = "from both ends at once, forward and backward passes in pairs to "
             "overlap; two weight copies",
     .source = "DeepSeek-AI, arXiv:2412.19437",
     .build = DualPipeSchedule,
     .bubble =
         [](const ScheduleShape& s, const StageCosts& c) {
           return DualPipeBubble(s.ranks / 2, c);
         },
     .peak = [](const ScheduleShape& s, const StageCosts& c,
                int) { return (s.ranks + 1) * c.held_to_input; },
     .messages =
         [](const ScheduleShape& s) {
           return int64_t{2} * s.micro_batches * (s.ranks - 1);
         }});

}  // namespace

}  // namespace shardproof
