#include "pipeline/naive/naive.h"

#include <algorithm>

#include "pipeline/builder.h"
#include "pipeline/registry.h"

namespace shardproof {

StatusOr<Schedule> NaiveSchedule(const ScheduleShape& shape) {
  Schedule schedule = EmptySchedule("naive", shape);
  for (std::vector<Action>& actions : schedule.actions) {
    for (int m = 0; m < shape.micro_batches; ++m) {
      actions.push_back({ActionKind::kForward, m});
      actions.push_back({ActionKind::kBackward, m});
    }
  }
  return schedule;
}

namespace {

const RegisterSchedule kNaive(
    {.name = "naive",
     .what = "one micro-batch after the other, one rank at a time",
     .source = "model parallelism without a pipeline",
     .build = NaiveSchedule,
     .bubble =
         [](const ScheduleShape& s, const StageCosts& c) {
           return s.micro_batches * (s.ranks - 1) *
                  (c.forward + c.input + c.weight);
         },
     .peak = [](const ScheduleShape&, const StageCosts& c,
                int) { return c.held_to_input; },
     .messages =
         [](const ScheduleShape& s) {
           return int64_t{2} * (s.ranks - 1) * s.micro_batches;
         }});

}  // namespace

}  // namespace shardproof
