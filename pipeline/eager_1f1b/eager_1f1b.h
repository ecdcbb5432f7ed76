// Eager 1F1B: twice the warm-up of 1F1B, so that messages have a whole action of
// time.
//
// Rank i warms up with min(2 (p - i - 1), m) F. The bubble is that of 1F1B, rank i
// holds min(m, 2 (p - i) - 1) micro-batches.
//
// Source: Zhuang et al., On Optimizing the Communication of Model Parallelism,
// arXiv:2211.05322, section 4.
#ifndef SHARDPROOF_PIPELINE_EAGER_1F1B_EAGER_1F1B_H_
#define SHARDPROOF_PIPELINE_EAGER_1F1B_EAGER_1F1B_H_

#include "pipeline/schedule.h"
#include "reference/status.h"

namespace shardproof {

StatusOr<Schedule> Eager1F1BSchedule(const ScheduleShape& shape);

}  // namespace shardproof

#endif  // SHARDPROOF_PIPELINE_EAGER_1F1B_EAGER_1F1B_H_
