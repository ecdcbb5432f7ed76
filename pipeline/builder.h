// What the builders of schedules have in common.
#ifndef SHARDPROOF_PIPELINE_BUILDER_H_
#define SHARDPROOF_PIPELINE_BUILDER_H_

#include <functional>
#include <string>

#include "pipeline/schedule.h"

namespace shardproof {

// A schedule of looping stages without any action yet.
Schedule EmptySchedule(std::string name, const ScheduleShape& shape);

// Which chunk of which micro-batch is number k of a rank's forward passes, or of
// its backward passes.
struct ChunkOfBatch {
  int micro_batch = 0;
  int chunk = 0;
};
using ChunkOrder = std::function<ChunkOfBatch(int k)>;

// F x warm-up, then (F, B) as long as there are F, then B: what all schedules
// that alternate do. `total` of each.
void Alternate(int warm_up, int total, const ChunkOrder& forward,
               const ChunkOrder& backward, std::vector<Action>& actions);
// The same with I in the place of B, and the W of the k-th I behind that of
// number k + delay; those that are left at the end.
void AlternateSplit(int warm_up, int delay, int total,
                    std::vector<Action>& actions);

// The k-th micro-batch of the only chunk.
ChunkOfBatch InOrder(int k);

}  // namespace shardproof

#endif  // SHARDPROOF_PIPELINE_BUILDER_H_
