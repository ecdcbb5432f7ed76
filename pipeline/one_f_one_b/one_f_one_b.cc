#include "pipeline/one_f_one_b/one_f_one_b.h"

#include <algorithm>

#include "pipeline/builder.h"
#include "pipeline/registry.h"

namespace shardproof {

StatusOr<Schedule> OneFOneBSchedule(const ScheduleShape& shape) {
  Schedule schedule = EmptySchedule("one_f_one_b", shape);
  for (int rank = 0; rank < shape.ranks; ++rank) {
    Alternate(shape.ranks - rank - 1, shape.micro_batches, InOrder, InOrder,
              schedule.actions[static_cast<size_t>(rank)]);
  }
  return schedule;
}

namespace {

const RegisterSchedule kOneFOneB(
    {.name = "one_f_one_b",
     .what = "one forward, one backward: few micro-batches in flight",
     .source = "Fan et al., arXiv:2007.01045",
     .build = OneFOneBSchedule,
     .bubble =
         [](const ScheduleShape& s, const StageCosts& c) {
           return (s.ranks - 1) * (c.forward + c.input + c.weight);
         },
     .peak =
         [](const ScheduleShape& s, const StageCosts& c, int rank) {
           return std::min(s.micro_batches, s.ranks - rank) * c.held_to_input;
         },
     .messages =
         [](const ScheduleShape& s) {
           return int64_t{2} * s.micro_batches * (s.ranks - 1);
         }});

}  // namespace

}  // namespace shardproof
