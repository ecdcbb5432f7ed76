// Naive model parallelism: one micro-batch after the other, one rank at a time.
//
// F and B of a micro-batch on every rank before the next begins: a rank is idle
// (p - 1)/p of the time, and holds one micro-batch.
#ifndef SHARDPROOF_PIPELINE_NAIVE_NAIVE_H_
#define SHARDPROOF_PIPELINE_NAIVE_NAIVE_H_

#include "pipeline/schedule.h"
#include "reference/status.h"

namespace shardproof {

StatusOr<Schedule> NaiveSchedule(const ScheduleShape& shape);

}  // namespace shardproof

#endif  // SHARDPROOF_PIPELINE_NAIVE_NAIVE_H_
