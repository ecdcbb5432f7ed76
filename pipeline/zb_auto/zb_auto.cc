#include "pipeline/zb_auto/zb_auto.h"

#include <algorithm>
#include <optional>
#include <utility>
#include <vector>

#include "pipeline/builder.h"
#include "pipeline/registry.h"
#include "pipeline/simulator.h"

namespace shardproof {
namespace {

struct Choices {
  bool f_beyond_first_input = false;
  bool leave_out_f = false;
  bool w_in_short_waits = false;
};

// What 1F1B holds on rank 0, unless another limit is asked for.
double LimitOf(const ScheduleShape& s) {
  if (s.memory_limit != 0) return s.memory_limit;
  return s.ranks * std::max(s.costs.held_to_input, s.costs.held_to_weight);
}

class Heuristic {
 public:
  Heuristic(const ScheduleShape& shape, const Choices& choices)
      : shape_(shape),
        costs_(shape.costs),
        choices_(choices),
        limit_(LimitOf(shape)),
        schedule_(EmptySchedule("zb_auto", shape)),
        ranks_(static_cast<size_t>(shape.ranks)) {}

  Schedule Build() && {
    WarmUp();
    for (int k = 1; k < shape_.micro_batches; ++k) Round();
    for (size_t r = 0; r < ranks_.size(); ++r) {
      while (WaitingWeights(r) > 0) Put(r, ActionKind::kWeight);
    }
    return std::move(schedule_);
  }

 private:
  struct Rank {
    double free = 0, held = 0;
    double waited = 0;  // Since its first action.
    int weights = 0;
    std::vector<double> forward_ends, input_ends;
  };

  size_t Forwards(size_t r) const { return ranks_[r].forward_ends.size(); }
  size_t Inputs(size_t r) const { return ranks_[r].input_ends.size(); }
  int WaitingWeights(size_t r) const {
    return static_cast<int>(Inputs(r)) - ranks_[r].weights;
  }
  bool AllForward(size_t r) const {
    return Forwards(r) == static_cast<size_t>(shape_.micro_batches);
  }

  // When the next F or I of a rank can begin for all the others.
  double Arrives(size_t r, ActionKind kind) const {
    if (kind == ActionKind::kForward && r > 0) {
      return ranks_[r - 1].forward_ends[Forwards(r)] + costs_.latency;
    }
    if (kind == ActionKind::kInput && r + 1 < ranks_.size()) {
      return ranks_[r + 1].input_ends[Inputs(r)] + costs_.latency;
    }
    return 0;
  }

  void Put(size_t r, ActionKind kind) {
    Rank& rank = ranks_[r];
    const double start = std::max(rank.free, Arrives(r, kind));
    std::vector<Action>& actions = schedule_.actions[r];
    if (!actions.empty()) rank.waited += start - rank.free;
    most_waited_ = std::max(most_waited_, rank.waited);
    rank.free = start + costs_.Of(kind);
    int micro_batch = rank.weights;
    switch (kind) {
      case ActionKind::kForward:
        micro_batch = static_cast<int>(Forwards(r));
        rank.forward_ends.push_back(rank.free);
        rank.held += costs_.held_to_input;
        break;
      case ActionKind::kBackward:
      case ActionKind::kInput:
        micro_batch = static_cast<int>(Inputs(r));
        rank.input_ends.push_back(rank.free);
        rank.held += costs_.held_to_weight - costs_.held_to_input;
        break;
      case ActionKind::kWeight:
        ++rank.weights;
        rank.held -= costs_.held_to_weight;
        break;
    }
    actions.push_back({kind, micro_batch, 0});
  }

  // W for the memory that an F or I needs, and for the time until it can begin.
  void PutWithWeights(size_t r, ActionKind kind) {
    Rank& rank = ranks_[r];
    const double more = kind == ActionKind::kForward
                            ? costs_.held_to_input
                            : costs_.held_to_weight - costs_.held_to_input;
    const double arrives = Arrives(r, kind);
    while (WaitingWeights(r) > 0 &&
           (rank.held + more > limit_ + kRounding ||
            rank.free + costs_.weight <= arrives + kRounding)) {
      Put(r, ActionKind::kWeight);
    }
    const double wait = arrives - rank.free;
    if (WaitingWeights(r) > 0 && wait > kRounding &&
        (choices_.w_in_short_waits ||
         rank.waited + wait > most_waited_ + kRounding)) {
      Put(r, ActionKind::kWeight);
    }
    Put(r, kind);
  }

  // F until the first I, and that.
  void WarmUp() {
    for (size_t r = 0; r < ranks_.size(); ++r) Put(r, ActionKind::kForward);
    std::vector<int> more(ranks_.size());
    double input_end = 0;
    for (size_t r = ranks_.size(); r-- > 0;) {
      const double arrives =
          r + 1 < ranks_.size() ? input_end + costs_.latency : 0;
      double free = ranks_[r].free;
      const auto fits = [&] {
        // With the I that follows, of which W is held.
        const double held =
            ranks_[r].held + (more[r] + 1) * costs_.held_to_input +
            std::max(0.0, costs_.held_to_weight - costs_.held_to_input);
        if (1 + more[r] >= shape_.micro_batches || held > limit_ + kRounding)
          return false;
        return choices_.f_beyond_first_input
                   ? free + kRounding < arrives
                   : free + costs_.forward <= arrives + kRounding;
      };
      while (fits()) {
        ++more[r];
        free += costs_.forward;
      }
      input_end = std::max(free, arrives) + costs_.input;
    }
    // A rank is ahead of the next one, unless it has no more.
    for (size_t r = 1; r < ranks_.size(); ++r) {
      more[r] = std::min(more[r], std::max(0, more[r - 1] - 1));
    }
    for (size_t r = 0; r < ranks_.size(); ++r) {
      for (int k = 0; k < more[r]; ++k) Put(r, ActionKind::kForward);
    }
    for (size_t r = ranks_.size(); r-- > 0;) Put(r, ActionKind::kInput);
  }

  // Whether a rank that is ahead by more than one F does none in this round,
  // because the next rank would wait for its I if it did.
  bool LeavesOut(size_t r) const {
    if (!choices_.leave_out_f || r + 1 >= ranks_.size()) return false;
    if (Forwards(r) < Forwards(r + 1) + 2) return false;
    const double arrives =
        ranks_[r + 1].free + costs_.forward + costs_.input + costs_.latency;
    return ranks_[r].free + costs_.forward > arrives + kRounding;
  }

  void Round() {
    std::vector<bool> forward(ranks_.size());
    for (size_t r = ranks_.size(); r-- > 0;) {
      forward[r] = !AllForward(r) && !LeavesOut(r);
      // What the next rank leaves out need not be there.
      if (r + 1 < ranks_.size() && !forward[r + 1]) forward[r] = false;
    }
    for (size_t r = 0; r < ranks_.size(); ++r) {
      if (forward[r]) PutWithWeights(r, ActionKind::kForward);
    }
    for (size_t r = ranks_.size(); r-- > 0;)
      PutWithWeights(r, ActionKind::kInput);
  }

  // Of sums of times.
  static constexpr double kRounding = 1e-9;

  const ScheduleShape& shape_;
  const StageCosts& costs_;
  Choices choices_;
  double limit_;
  Schedule schedule_;
  std::vector<Rank> ranks_;
  double most_waited_ = 0;
};

}  // namespace

StatusOr<Schedule> ZbAutoSchedule(const ScheduleShape& shape) {
  const double least =
      std::max(shape.costs.held_to_input, shape.costs.held_to_weight);
  if (LimitOf(shape) < least) {
    return InvalidArgument(
        "zb_auto needs memory for a micro-batch, {:.4g}, not {:.4g}", least,
        LimitOf(shape));
  }
  std::optional<Schedule> best;
  std::pair<double, double> best_cost;
  for (int choice = 0; choice < 8; ++choice) {
    Schedule schedule = Heuristic(shape, {(choice & 1) != 0, (choice & 2) != 0,
                                          (choice & 4) != 0})
                            .Build();
    SP_ASSIGN_OR_RETURN(const Simulation s, Simulate(schedule, shape.costs));
    double own = 0;
    for (int rank = 0; rank < shape.ranks; ++rank) {
      own = std::max(own, s.IdleWithin(rank));
    }
    const std::pair<double, double> cost = {own, s.makespan};
    if (!best || cost < best_cost) {
      best = std::move(schedule);
      best_cost = cost;
    }
  }
  return *best;
}

namespace {

const RegisterSchedule kZbAuto(
    {.name = "zb_auto",
     .what = "searched for: weight gradients where they fit, within a limit of "
             "memory",
     .source = "Qi et al., arXiv:2401.10241",
     .build = ZbAutoSchedule,
     // That of ZB-H1 if it has its memory, else that of no pipeline at all.
     .bubble =
         [](const ScheduleShape& s, const StageCosts& c) {
           const double all = c.forward + c.input + c.weight;
           if (LimitOf(s) < s.ranks * c.held_to_input) {
             return s.micro_batches * (s.ranks - 1) * all;
           }
           return (s.ranks - 1) * (all - 2 * c.weight);
         },
     .peak = [](const ScheduleShape& s, const StageCosts&,
                int) { return LimitOf(s); },
     .at_most = true,
     .messages =
         [](const ScheduleShape& s) {
           return int64_t{2} * s.micro_batches * (s.ranks - 1);
         }});

}  // namespace

}  // namespace shardproof
