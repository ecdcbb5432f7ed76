#include "pipeline/gpipe/gpipe.h"

#include <algorithm>

#include "pipeline/builder.h"
#include "pipeline/registry.h"

namespace shardproof {

StatusOr<Schedule> GpipeSchedule(const ScheduleShape& shape) {
  Schedule schedule = EmptySchedule("gpipe", shape);
  const int m = shape.micro_batches;
  for (std::vector<Action>& actions : schedule.actions) {
    Alternate(m, m, InOrder, InOrder, actions);
  }
  return schedule;
}

namespace {

const RegisterSchedule kGpipe(
    {.name = "gpipe",
     .what = "forward of all micro-batches, then backward of all",
     .source = "Huang et al., arXiv:1811.06965",
     .build = GpipeSchedule,
     .bubble =
         [](const ScheduleShape& s, const StageCosts& c) {
           return (s.ranks - 1) * (c.forward + c.input + c.weight);
         },
     .peak = [](const ScheduleShape& s, const StageCosts& c,
                int) { return s.micro_batches * c.held_to_input; },
     .messages =
         [](const ScheduleShape& s) {
           return int64_t{2} * s.micro_batches * (s.ranks - 1);
         }});

}  // namespace

}  // namespace shardproof
