#include "pipeline/breadth_first/breadth_first.h"

#include <algorithm>

#include "pipeline/builder.h"
#include "pipeline/registry.h"

namespace shardproof {

StatusOr<Schedule> BreadthFirstSchedule(const ScheduleShape& shape) {
  const int m = shape.micro_batches, v = shape.chunks;
  if (m < shape.ranks && v > 1) {
    return InvalidArgument(
        "breadth_first needs a micro-batch for each of {} ranks, not {}",
        shape.ranks, m);
  }
  Schedule schedule = EmptySchedule("breadth_first", shape);
  const auto forward = [m](int k) { return ChunkOfBatch{k % m, k / m}; };
  const auto backward = [m, v](int k) {
    return ChunkOfBatch{k % m, v - 1 - k / m};
  };
  for (std::vector<Action>& actions : schedule.actions) {
    Alternate(m * v, m * v, forward, backward, actions);
  }
  return schedule;
}

namespace {

const RegisterSchedule kBreadthFirst(
    {.name = "breadth_first",
     .what = "all micro-batches through chunk after chunk",
     .source = "Lamy-Poirier, arXiv:2211.05953",
     .takes_chunks = true,
     .build = BreadthFirstSchedule,
     .bubble =
         [](const ScheduleShape& s, const StageCosts& c) {
           return (s.ranks - 1) * (c.forward + c.input + c.weight) / s.chunks;
         },
     .peak = [](const ScheduleShape& s, const StageCosts& c,
                int) { return s.micro_batches * c.held_to_input; },
     .messages =
         [](const ScheduleShape& s) {
           if (s.ranks == 1) return int64_t{0};
           return int64_t{2} * s.micro_batches * (s.ranks * s.chunks - 1);
         }});

}  // namespace

}  // namespace shardproof
