#include "pipeline/simulator.h"

#include <algorithm>
#include <cstddef>
#include <optional>

namespace shardproof {
namespace {

// The ends of what was done, for each stage of each micro-batch.
class Done {
 public:
  explicit Done(const Schedule& schedule)
      : stages_(static_cast<size_t>(schedule.stages())),
        forward_(static_cast<size_t>(schedule.micro_batches) * stages_),
        input_(forward_.size()) {}

  std::optional<double>& Forward(int micro_batch, int stage) {
    return forward_[Index(micro_batch, stage)];
  }
  // Of B or I.
  std::optional<double>& Input(int micro_batch, int stage) {
    return input_[Index(micro_batch, stage)];
  }

 private:
  size_t Index(int micro_batch, int stage) const {
    return static_cast<size_t>(micro_batch) * stages_ +
           static_cast<size_t>(stage);
  }
  size_t stages_;
  std::vector<std::optional<double>> forward_, input_;
};

class Run {
 public:
  Run(const Schedule& schedule, const StageCosts& costs)
      : schedule_(schedule),
        costs_(costs),
        done_(schedule),
        next_(schedule.actions.size()),
        free_(schedule.actions.size()),
        held_(schedule.actions.size()) {
    result_.busy.resize(schedule.actions.size());
    result_.peak.resize(schedule.actions.size());
    result_.times.resize(schedule.actions.size());
    // A rank's share of the model is cut into so many.
    const int ranks = std::max(1, schedule.ranks());
    chunks_ = std::max(1, schedule.stages() / ranks);
  }

  StatusOr<Simulation> ToTheEnd() {
    bool moved = true;
    while (moved) {
      moved = false;
      for (size_t rank = 0; rank < next_.size(); ++rank) {
        while (next_[rank] < schedule_.actions[rank].size() &&
               Try(static_cast<int>(rank))) {
          moved = true;
        }
      }
    }
    for (size_t rank = 0; rank < next_.size(); ++rank) {
      if (next_[rank] == schedule_.actions[rank].size()) continue;
      return InvalidArgument(
          "rank {} waits for ever in its action {}, {}", rank, next_[rank],
          schedule_.Text(schedule_.actions[rank][next_[rank]]));
    }
    return std::move(result_);
  }

 private:
  // When what `action` of `rank` needs is there; unset: not yet.
  std::optional<double> ThereAt(int rank, const Action& action, int stage) {
    double at = 0;
    const auto needs = [&](const std::optional<double>& end, int of_stage) {
      if (!end) return false;
      const bool sent =
          schedule_.PlaceOf(action.micro_batch, of_stage).rank != rank;
      at = std::max(at, *end + (sent ? costs_.latency : 0));
      return true;
    };
    const int m = action.micro_batch, last = schedule_.stages() - 1;
    bool there = true;
    switch (action.kind) {
      case ActionKind::kForward:
        there = stage == 0 || needs(done_.Forward(m, stage - 1), stage - 1);
        break;
      case ActionKind::kBackward:
      case ActionKind::kInput:
        there = needs(done_.Forward(m, stage), stage) &&
                (stage == last || needs(done_.Input(m, stage + 1), stage + 1));
        break;
      case ActionKind::kWeight:
        there = needs(done_.Input(m, stage), stage);
        break;
    }
    return there ? std::optional<double>(at) : std::nullopt;
  }

  // When number i of a rank's actions can begin for all the others.
  std::optional<double> ThereAt(int rank, size_t i) {
    const Action& action = schedule_.actions[static_cast<size_t>(rank)][i];
    const int stage =
        schedule_.StageAt(action.micro_batch, {rank, action.chunk});
    return stage < 0 ? std::nullopt : ThereAt(rank, action, stage);
  }

  bool Try(int rank) {
    const auto r = static_cast<size_t>(rank);
    const size_t i = next_[r];
    const bool pair = costs_.overlapped && schedule_.IsPair(rank, i);
    std::optional<double> there = ThereAt(rank, i);
    if (!there) return false;
    if (pair) {
      const std::optional<double> other = ThereAt(rank, i + 1);
      if (!other) return false;
      there = std::max(*there, *other);
    }
    const double start = std::max(free_[r], *there);
    const double took =
        (pair ? *costs_.overlapped : costs_.Of(schedule_.actions[r][i].kind)) /
        chunks_;
    free_[r] = start + took;
    result_.busy[r] += took;
    result_.makespan = std::max(result_.makespan, free_[r]);
    for (; next_[r] < i + (pair ? 2 : 1); ++next_[r]) {
      const Action& action = schedule_.actions[r][next_[r]];
      result_.times[r].push_back({start, free_[r]});
      Finish(rank, action,
             schedule_.StageAt(action.micro_batch, {rank, action.chunk}));
    }
    return true;
  }

  void Finish(int rank, const Action& action, int stage) {
    const auto r = static_cast<size_t>(rank);
    const int m = action.micro_batch, last = schedule_.stages() - 1;
    const auto sends_to = [&](int other) {
      if (schedule_.PlaceOf(m, other).rank != rank) ++result_.messages;
    };
    switch (action.kind) {
      case ActionKind::kForward:
        done_.Forward(m, stage) = free_[r];
        held_[r] += costs_.held_to_input / chunks_;
        if (stage < last) sends_to(stage + 1);
        break;
      case ActionKind::kBackward:
      case ActionKind::kInput:
        done_.Input(m, stage) = free_[r];
        held_[r] -= costs_.held_to_input / chunks_;
        if (action.kind == ActionKind::kInput) {
          held_[r] += costs_.held_to_weight / chunks_;
        }
        if (stage > 0) sends_to(stage - 1);
        break;
      case ActionKind::kWeight:
        held_[r] -= costs_.held_to_weight / chunks_;
        break;
    }
    result_.peak[r] = std::max(result_.peak[r], held_[r]);
  }

  const Schedule& schedule_;
  const StageCosts& costs_;
  Done done_;
  int chunks_ = 1;
  std::vector<size_t> next_;
  std::vector<double> free_, held_;
  Simulation result_;
};

}  // namespace

double Simulation::IdleWithin(int rank) const {
  const auto r = static_cast<size_t>(rank);
  if (times[r].empty()) return 0;
  return times[r].back().end - times[r].front().start - busy[r];
}

StatusOr<Simulation> Simulate(const Schedule& schedule,
                              const StageCosts& costs) {
  return Run(schedule, costs).ToTheEnd();
}

}  // namespace shardproof
