#include "pipeline/dualpipe_v/dualpipe_v.h"

#include <algorithm>
#include <array>
#include <deque>

#include "pipeline/builder.h"
#include "pipeline/registry.h"

namespace shardproof {
namespace {

// A rank's actions, of both chunks in the order of micro-batches; weights in the
// order of the inputs that they belong to.
class Rank {
 public:
  explicit Rank(std::vector<Action>& actions) : actions_(actions) {}

  void F(int chunk) { Add(ActionKind::kForward, chunk, forward_); }
  void B(int chunk) { Add(ActionKind::kBackward, chunk, backward_); }
  void I(int chunk) {
    Add(ActionKind::kInput, chunk, backward_);
    waiting_.push_back(actions_.back());
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
  void Add(ActionKind kind, int chunk, Counts& counts) {
    actions_.push_back({kind, counts[static_cast<size_t>(chunk)]++, chunk});
  }
  std::vector<Action>& actions_;
  std::deque<Action> waiting_;
  Counts forward_ = {}, backward_ = {};
};

void Build(const ScheduleShape& s, int i, Rank rank) {
  const int ranks = s.ranks, m = s.micro_batches;
  for (int k = 0; k < 2 * (ranks - i - 1); ++k) rank.F(0);
  for (int k = 0; k < i + 1; ++k) {
    rank.F(0);
    rank.F(1);
  }
  for (int k = 0; k < ranks - i - 1; ++k) {
    rank.I(1);
    rank.W();
    rank.F(1);
  }
  for (int k = 0; k < m - 2 * ranks + i + 1; ++k) {
    rank.F(0);
    rank.B(1);
    rank.F(1);
    rank.B(0);
  }
  for (int k = 0; k < ranks - i - 1; ++k) {
    rank.B(1);
    rank.F(1);
    rank.B(0);
  }
  // Weights wait from the middle on.
  for (int k = 0; k < 2 * (i + 1); ++k) {
    const int chunk = 1 - k % 2;
    if (k < i + 1) {
      rank.B(chunk);
    } else {
      rank.I(chunk);
    }
  }
  for (int k = 0; k < ranks - i - 1; ++k) {
    rank.W();
    rank.I(0);
  }
  for (int k = 0; k < i + 1; ++k) rank.W();
}

}  // namespace

StatusOr<Schedule> DualPipeVSchedule(const ScheduleShape& shape) {
  const int p = shape.ranks;
  if (shape.micro_batches < 2 * p) {
    return InvalidArgument(
        "dualpipe_v needs {} micro-batches for {} ranks, not {}", 2 * p, p,
        shape.micro_batches);
  }
  Schedule schedule = EmptySchedule("dualpipe_v", shape);
  std::vector<Place>& stages = schedule.pipelines[0];
  stages.clear();
  for (int rank = 0; rank < p; ++rank) stages.push_back({rank, 0});
  for (int rank = p - 1; rank >= 0; --rank) stages.push_back({rank, 1});
  for (int rank = 0; rank < p; ++rank) {
    Build(shape, rank, Rank(schedule.actions[static_cast<size_t>(rank)]));
  }
  return schedule;
}

namespace {

const RegisterSchedule kDualPipeV(
    {.name = "dualpipe_v",
     .what = "a V whose forward and backward passes come in pairs, to overlap",
     .source = "DeepSeek-AI, arXiv:2412.19437; Qi et al., cut in half",
     .build = DualPipeVSchedule,
     .bubble =
         [](const ScheduleShape& s, const StageCosts& c) {
           return (s.ranks - 1) * (c.forward + c.input - c.weight) / 2;
         },
     .peak = [](const ScheduleShape& s, const StageCosts& c,
                int) { return (2 * s.ranks + 1) * c.held_to_input / 2; },
     .messages =
         [](const ScheduleShape& s) {
           return int64_t{4} * s.micro_batches * (s.ranks - 1);
         }});

}  // namespace

}  // namespace shardproof
