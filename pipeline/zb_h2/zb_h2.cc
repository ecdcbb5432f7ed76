#include "pipeline/zb_h2/zb_h2.h"

#include <algorithm>

#include "pipeline/builder.h"
#include "pipeline/registry.h"

namespace shardproof {

StatusOr<Schedule> ZbH2Schedule(const ScheduleShape& shape) {
  if (shape.micro_batches < 2 * shape.ranks - 1) {
    return InvalidArgument("zb_h2 needs {} micro-batches for {} ranks, not {}",
                           2 * shape.ranks - 1, shape.ranks,
                           shape.micro_batches);
  }
  Schedule schedule = EmptySchedule("zb_h2", shape);
  for (int rank = 0; rank < shape.ranks; ++rank) {
    AlternateSplit(2 * (shape.ranks - rank - 1), 2 * rank, shape.micro_batches,
                   schedule.actions[static_cast<size_t>(rank)]);
  }
  return schedule;
}

namespace {

const RegisterSchedule kZbH2(
    {.name = "zb_h2",
     .what = "weight gradients in all idle time, for twice the memory",
     .source = "Qi et al., arXiv:2401.10241",
     .build = ZbH2Schedule,
     .bubble =
         [](const ScheduleShape& s, const StageCosts& c) {
           return (s.ranks - 1) * (c.forward + c.input - 2 * c.weight);
         },
     .bubble_within = true,
     .peak =
         [](const ScheduleShape& s, const StageCosts& c, int rank) {
           return (2 * s.ranks - 2 * rank - 1) * c.held_to_input +
                  2 * rank * c.held_to_weight;
         },
     .messages =
         [](const ScheduleShape& s) {
           return int64_t{2} * s.micro_batches * (s.ranks - 1);
         }});

}  // namespace

}  // namespace shardproof
