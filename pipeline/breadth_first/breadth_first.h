// Breadth-first looping: F of all micro-batches through chunk after chunk, then B
// through the chunks the other way round.
//
// The bubble is (p - 1)(F + B + W) / v, as interleaved; every rank holds all
// micro-batches, and a chunk's weights are used for all of them at once, which
// fully sharded data parallelism gathers them for. Needs at least p micro-batches.
//
// Source: Lamy-Poirier, Breadth-First Pipeline Parallelism, arXiv:2211.05953.
#ifndef SHARDPROOF_PIPELINE_BREADTH_FIRST_BREADTH_FIRST_H_
#define SHARDPROOF_PIPELINE_BREADTH_FIRST_BREADTH_FIRST_H_

#include "pipeline/schedule.h"
#include "reference/status.h"

namespace shardproof {

StatusOr<Schedule> BreadthFirstSchedule(const ScheduleShape& shape);

}  // namespace shardproof

#endif  // SHARDPROOF_PIPELINE_BREADTH_FIRST_BREADTH_FIRST_H_
