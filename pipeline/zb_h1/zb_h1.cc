#include "pipeline/zb_h1/zb_h1.h"

#include <algorithm>

#include "pipeline/builder.h"
#include "pipeline/registry.h"

namespace shardproof {

StatusOr<Schedule> ZbH1Schedule(const ScheduleShape& shape) {
  if (shape.micro_batches < shape.ranks) {
    return InvalidArgument(
        "zb_h1 needs a micro-batch for each of {} ranks, not {}", shape.ranks,
        shape.micro_batches);
  }
  Schedule schedule = EmptySchedule("zb_h1", shape);
  for (int rank = 0; rank < shape.ranks; ++rank) {
    AlternateSplit(shape.ranks - rank - 1, rank, shape.micro_batches,
                   schedule.actions[static_cast<size_t>(rank)]);
  }
  return schedule;
}

namespace {

const RegisterSchedule kZbH1(
    {.name = "zb_h1",
     .what = "1F1B with weight gradients in its idle time, no more memory",
     .source = "Qi et al., arXiv:2401.10241",
     .build = ZbH1Schedule,
     .bubble =
         [](const ScheduleShape& s, const StageCosts& c) {
           return (s.ranks - 1) * (c.forward + c.input - c.weight);
         },
     .peak =
         [](const ScheduleShape& s, const StageCosts& c, int rank) {
           return (s.ranks - rank) * c.held_to_input + rank * c.held_to_weight;
         },
     .messages =
         [](const ScheduleShape& s) {
           return int64_t{2} * s.micro_batches * (s.ranks - 1);
         }});

}  // namespace

}  // namespace shardproof
