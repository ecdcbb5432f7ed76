// ZB-H2: twice the warm-up of ZB-H1, so that W fills all idle time where F, B and
// W take as long.
//
// Rank i warms up with 2 (p - i - 1) F and does the W of an I behind the I that
// comes 2 i later, the rest at the end.
//
// The bubble is (p - 1)(F + B - 2W), none where they are equal, of a rank's own
// time: ranks begin and end one after the other, and an optimizer that waits for
// all gives it back; rank i holds (2 p -
// 2 i - 1) M_B + 2 i M_W. For at least 2 p - 1 micro-batches.
//
// Source: Qi et al., Zero Bubble Pipeline Parallelism, arXiv:2401.10241, section
// 2.3.
#ifndef SHARDPROOF_PIPELINE_ZB_H2_ZB_H2_H_
#define SHARDPROOF_PIPELINE_ZB_H2_ZB_H2_H_

#include "pipeline/schedule.h"
#include "reference/status.h"

namespace shardproof {

StatusOr<Schedule> ZbH2Schedule(const ScheduleShape& shape);

}  // namespace shardproof

#endif  // SHARDPROOF_PIPELINE_ZB_H2_ZB_H2_H_
