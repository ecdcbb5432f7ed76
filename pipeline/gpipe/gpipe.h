// GPipe: F of all micro-batches, then B of all.
//
// The bubble is (p - 1)(F + B + W) per rank, and every rank holds all
// micro-batches.
//
// Source: Huang et al., GPipe, arXiv:1811.06965, section 2.3.
#ifndef SHARDPROOF_PIPELINE_GPIPE_GPIPE_H_
#define SHARDPROOF_PIPELINE_GPIPE_GPIPE_H_

#include "pipeline/schedule.h"
#include "reference/status.h"

namespace shardproof {

StatusOr<Schedule> GpipeSchedule(const ScheduleShape& shape);

}  // namespace shardproof

#endif  // SHARDPROOF_PIPELINE_GPIPE_GPIPE_H_
