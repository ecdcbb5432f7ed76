#include "pipeline/eager_1f1b/eager_1f1b.h"

#include <algorithm>

#include "pipeline/builder.h"
#include "pipeline/registry.h"

namespace shardproof {

StatusOr<Schedule> Eager1F1BSchedule(const ScheduleShape& shape) {
  Schedule schedule = EmptySchedule("eager_1f1b", shape);
  for (int rank = 0; rank < shape.ranks; ++rank) {
    Alternate(2 * (shape.ranks - rank - 1), shape.micro_batches, InOrder,
              InOrder, schedule.actions[static_cast<size_t>(rank)]);
  }
  return schedule;
}

namespace {

const RegisterSchedule kEager1F1B(
    {.name = "eager_1f1b",
     .what = "1F1B with twice the warm-up, in which messages hide",
     .source = "Zhuang et al., arXiv:2211.05322",
     .build = Eager1F1BSchedule,
     .bubble =
         [](const ScheduleShape& s, const StageCosts& c) {
           return (s.ranks - 1) * (c.forward + c.input + c.weight);
         },
     .peak =
         [](const ScheduleShape& s, const StageCosts& c, int rank) {
           return std::min(s.micro_batches, 2 * (s.ranks - rank) - 1) *
                  c.held_to_input;
         },
     .messages =
         [](const ScheduleShape& s) {
           return int64_t{2} * s.micro_batches * (s.ranks - 1);
         }});

}  // namespace

}  // namespace shardproof
