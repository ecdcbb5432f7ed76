#include "pipeline/chimera/chimera.h"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <map>

#include "pipeline/registry.h"

namespace shardproof {

StatusOr<Schedule> ChimeraSchedule(const ScheduleShape& shape) {
  const int p = shape.ranks, m = shape.micro_batches;
  if (p % 2 != 0) {
    return InvalidArgument("chimera needs an even number of ranks, not {}", p);
  }
  if (m % p != 0) {
    return InvalidArgument(
        "chimera needs a multiple of {} micro-batches, not {}", p, m);
  }
  Schedule schedule;
  schedule.name = "chimera";
  schedule.micro_batches = m;
  schedule.pipelines = OppositeStages(p);
  for (int k = 0; k < m; ++k) {
    schedule.pipeline_of.push_back(k % p < p / 2 ? 0 : 1);
  }
  for (int rank = 0; rank < p; ++rank) {
    std::map<int, Action> at;  // Its slots.
    for (int k = 0; k < m; ++k) {
      const int pipeline = schedule.PipelineOf(k);
      const int stage = schedule.StageAt(k, {rank, pipeline});
      const int enters = k / p * 2 * p + 2 * (k % (p / 2));
      at[enters + stage] = {ActionKind::kForward, k, pipeline};
      at[enters + 2 * p - 1 - stage] = {ActionKind::kBackward, k, pipeline};
    }
    std::vector<Action>& actions = schedule.actions.emplace_back();
    for (const auto& [slot, action] : at) actions.push_back(action);
  }
  return schedule;
}

namespace {

const RegisterSchedule kChimera(
    {.name = "chimera",
     .what = "1F1B from both ends at once; two weight copies",
     .source = "Li and Hoefler, arXiv:2107.06925",
     .build = ChimeraSchedule,
     .bubble =
         [](const ScheduleShape& s, const StageCosts& c) {
           const double backward = c.input + c.weight;
           const int units = s.micro_batches / s.ranks;
           return (s.ranks - 2) *
                  (std::max(c.forward, backward) +
                   (units - 1) * std::abs(c.forward - backward));
         },
     .peak =
         [](const ScheduleShape& s, const StageCosts& c, int rank) {
           const int from_end = std::min(rank, s.ranks - 1 - rank);
           const int held = s.ranks / 2 + 1 + from_end;
           return held * c.held_to_input;
         },
     .messages =
         [](const ScheduleShape& s) {
           return int64_t{2} * s.micro_batches * (s.ranks - 1);
         }});

}  // namespace

}  // namespace shardproof
