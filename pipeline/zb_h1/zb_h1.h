// ZB-H1: 1F1B whose W wait for the idle time at the end.
//
// The backward pass is split; rank i warms up as in 1F1B and does the W of an I
// behind the I that comes i later, the rest at the end.
//
// The bubble is (p - 1)(F + B - W), B that of inputs; rank i holds (p - i) M_B + i
// M_W, at most what 1F1B holds on rank 0. For at least p micro-batches.
//
// Source: Qi et al., Zero Bubble Pipeline Parallelism, arXiv:2401.10241, section
// 2.2.
#ifndef SHARDPROOF_PIPELINE_ZB_H1_ZB_H1_H_
#define SHARDPROOF_PIPELINE_ZB_H1_ZB_H1_H_

#include "pipeline/schedule.h"
#include "reference/status.h"

namespace shardproof {

StatusOr<Schedule> ZbH1Schedule(const ScheduleShape& shape);

}  // namespace shardproof

#endif  // SHARDPROOF_PIPELINE_ZB_H1_ZB_H1_H_
