#include "pipeline/dualpipe_v/dualpipe_v.h"

#include "pipeline/builder.h"
#include "pipeline/dualpipe/dualpipe.h"
#include "pipeline/registry.h"

namespace shardproof {
StatusOr<Schedule> DualPipeVSchedule(const ScheduleShape& shape) {
  const int p = shape.ranks;
  if (shape.micro_batches < 2 * p) {
    return InvalidArgument(
        "dualpipe_v needs {} micro-batches for {} ranks, not {}", 2 * p, p,
        shape.micro_batches);
  }
  Schedule schedule = EmptySchedule("dualpipe_v", shape);
  schedule.pipelines = {VStages(p)};
  for (int rank = 0; rank < p; ++rank) {
    AddDualPipeActions(rank, p, shape.micro_batches, {Direction{0}, {1}},
                       schedule.actions[static_cast<size_t>(rank)]);
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
           return DualPipeBubble(s.ranks, c) / 2;
         },
     .peak = [](const ScheduleShape& s, const StageCosts& c,
                int) { return (2 * s.ranks + 1) * c.held_to_input / 2; },
     .messages =
         [](const ScheduleShape& s) {
           return int64_t{4} * s.micro_batches * (s.ranks - 1);
         }});

}  // namespace

}  // namespace shardproof
