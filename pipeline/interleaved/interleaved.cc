#include "pipeline/interleaved/interleaved.h"

#include <algorithm>

#include "pipeline/builder.h"
#include "pipeline/registry.h"

namespace shardproof {

namespace {

int WarmUp(const ScheduleShape& s, int rank) {
  return std::min(2 * (s.ranks - rank - 1) + (s.chunks - 1) * s.ranks,
                  s.micro_batches * s.chunks);
}

}  // namespace

StatusOr<Schedule> InterleavedSchedule(const ScheduleShape& shape) {
  const int p = shape.ranks, v = shape.chunks;
  if (shape.micro_batches % p != 0) {
    return InvalidArgument(
        "interleaved needs a multiple of {} micro-batches, not {}", p,
        shape.micro_batches);
  }
  Schedule schedule = EmptySchedule("interleaved", shape);
  const auto forward = [p, v](int k) {
    return ChunkOfBatch{k / (p * v) * p + k % p, k / p % v};
  };
  const auto backward = [&](int k) {
    const ChunkOfBatch f = forward(k);
    return ChunkOfBatch{f.micro_batch, v - 1 - f.chunk};
  };
  for (int rank = 0; rank < p; ++rank) {
    Alternate(WarmUp(shape, rank), shape.micro_batches * v, forward, backward,
              schedule.actions[static_cast<size_t>(rank)]);
  }
  return schedule;
}

namespace {

const RegisterSchedule kInterleaved(
    {.name = "interleaved",
     .what = "1F1B over several chunks of each rank, in groups of p",
     .source = "Narayanan et al., arXiv:2104.04473",
     .takes_chunks = true,
     .build = InterleavedSchedule,
     .bubble =
         [](const ScheduleShape& s, const StageCosts& c) {
           return (s.ranks - 1) * (c.forward + c.input + c.weight) / s.chunks;
         },
     .peak =
         [](const ScheduleShape& s, const StageCosts& c, int rank) {
           const int chunks =
               std::min(WarmUp(s, rank) + 1, s.micro_batches * s.chunks);
           return chunks * c.held_to_input / s.chunks;
         },
     .messages =
         [](const ScheduleShape& s) {
           if (s.ranks == 1) return int64_t{0};
           return int64_t{2} * s.micro_batches * (s.ranks * s.chunks - 1);
         }});

}  // namespace

}  // namespace shardproof
