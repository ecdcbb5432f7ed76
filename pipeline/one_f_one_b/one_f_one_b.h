// 1F1B: as few micro-batches in flight as keep all ranks busy.
//
// Rank i warms up with w = min(p - i - 1, m) F, then does (F, B) x (m - w) and B x
// w. The bubble is that of GPipe, (p - 1)(F + B + W), and rank i holds min(m, p -
// i) micro-batches.
//
// Sources: Narayanan et al., PipeDream, arXiv:1806.03377; Fan et al., DAPPLE,
// arXiv:2007.01045 (with a flush).
#ifndef SHARDPROOF_PIPELINE_ONE_F_ONE_B_ONE_F_ONE_B_H_
#define SHARDPROOF_PIPELINE_ONE_F_ONE_B_ONE_F_ONE_B_H_

#include "pipeline/schedule.h"
#include "reference/status.h"

namespace shardproof {

StatusOr<Schedule> OneFOneBSchedule(const ScheduleShape& shape);

}  // namespace shardproof

#endif  // SHARDPROOF_PIPELINE_ONE_F_ONE_B_ONE_F_ONE_B_H_
