#include "pipeline/speed/bubble.h"

#include <algorithm>
#include <array>
#include <cstddef>
#include <map>
#include <tuple>
#include <vector>

#include "pipeline/simulator.h"
#include "pipeline/speed/sleeping_run.h"

namespace shardproof {
namespace {

// From the end of an action to the begin of one on another rank that waited for
// what it sent: the median, since who waits is woken now sooner, now later.
double LinkOf(const Schedule& s, const ActionTimes& times) {
  // When what a stage made of a micro-batch was sent, forward and back.
  std::map<std::tuple<bool, int, int>, double> sent;
  std::vector<double> waits;
  const auto each = [&](const auto& f) {
    for (int rank = 0; rank < s.ranks(); ++rank) {
      const auto r = static_cast<size_t>(rank);
      for (size_t i = 0; i < times[r].size(); ++i) {
        const Action& a = s.actions[r][i];
        if (a.kind == ActionKind::kWeight) continue;
        f(a.kind == ActionKind::kForward, a.micro_batch,
          s.StageAt(a.micro_batch, {rank, a.chunk}), rank, i);
      }
    }
  };
  each([&](bool forward, int m, int stage, int rank, size_t i) {
    sent[{forward, m, stage}] = times[static_cast<size_t>(rank)][i].end;
  });
  each([&](bool forward, int m, int stage, int rank, size_t i) {
    const int source = forward ? stage - 1 : stage + 1;
    if (source < 0 || source >= s.stages()) return;
    if (s.PlaceOf(m, source).rank == rank) return;
    const std::vector<TimeSpan>& mine = times[static_cast<size_t>(rank)];
    const double left = sent.at({forward, m, source});
    if (i == 0 || mine[i - 1].end < left) waits.push_back(mine[i].start - left);
  });
  if (waits.empty()) return 0;
  const auto median = waits.begin() + static_cast<ptrdiff_t>(waits.size() / 2);
  std::nth_element(waits.begin(), median, waits.end());
  return *median;
}

// The costs that the simulator is to have, from the mean time of each kind.
StageCosts CostsOf(const Schedule& s, const ActionTimes& times,
                   const BubbleOptions& options) {
  std::array<double, 4> sums = {}, counts = {};
  for (size_t rank = 0; rank < times.size(); ++rank) {
    for (size_t i = 0; i < times[rank].size(); ++i) {
      const auto kind = static_cast<size_t>(s.actions[rank][i].kind);
      sums[kind] += times[rank][i].end - times[rank][i].start;
      ++counts[kind];
    }
  }
  const auto mean = [&](ActionKind kind) {
    const auto at = static_cast<size_t>(kind);
    return counts[at] > 0 ? sums[at] / counts[at] : 0;
  };
  // The simulator's are of a rank's whole share of the model.
  const double chunks = std::max(1, s.stages() / s.ranks());
  StageCosts costs;
  costs.latency = LinkOf(s, times);
  costs.forward = chunks * mean(ActionKind::kForward);
  costs.input = chunks * mean(ActionKind::kInput);
  costs.weight = chunks * mean(ActionKind::kWeight);
  // Without split backward passes only their sum is known, and only it matters.
  if (counts[static_cast<size_t>(ActionKind::kInput)] == 0) {
    const double share = options.input / (options.input + options.weight);
    costs.input = share * chunks * mean(ActionKind::kBackward);
    costs.weight = (1 - share) * chunks * mean(ActionKind::kBackward);
  }
  return costs;
}

double Busy(const ActionTimes& times) {
  double busy = 0;
  for (const std::vector<TimeSpan>& of_rank : times) {
    for (const TimeSpan& t : of_rank) busy += t.end - t.start;
  }
  return busy;
}

StatusOr<BubbleResult> Judge(const Schedule& s, const ActionTimes& times,
                             const BubbleOptions& options) {
  const StageCosts costs = CostsOf(s, times, options);
  SP_ASSIGN_OR_RETURN(const Simulation simulated, Simulate(s, costs));
  double busy = 0;
  for (const double of_rank : simulated.busy) busy += of_rank;
  BubbleResult result;
  result.link = costs.latency;
  const TimeSpan span = SpanOf(times);
  result.step = span.end - span.start;
  result.bubble = 1 - Busy(times) / (s.ranks() * result.step);
  result.predicted_step = simulated.makespan;
  result.predicted_bubble = 1 - busy / (s.ranks() * simulated.makespan);
  return result;
}

}  // namespace

StatusOr<BubbleResult> MeasureBubble(const Schedule& schedule,
                                     const BubbleOptions& options) {
  SP_ASSIGN_OR_RETURN(
      const std::vector<ActionTimes> steps,
      RunSleeping(schedule, {.costs = {.forward = options.forward,
                                       .input = options.input,
                                       .weight = options.weight},
                             .bytes = options.bytes,
                             .steps = options.rounds}));
  return Judge(schedule, MedianStep(steps), options);
}

}  // namespace shardproof
