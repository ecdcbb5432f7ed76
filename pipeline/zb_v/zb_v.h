// ZB-V: two chunks on each rank, down the ranks and back up, so that the rank
// that begins also ends, and no rank waits where F, B and W take as long.
//
// Stage s < p is chunk 0 of rank s, stage s >= p chunk 1 of rank 2p - 1 - s. Rank
// i does
//
//     F0 x (2 (p - i) - 1)       (F1 F0) x i       (F1 I1 W1) x (p - i)
//     [F0] I0 W0 F1 I1 W1        while there are F
//     (I0 I1) x i                (I0 W0) x (p - i)
//     W1 and W0 that are left
//
// No bubble of a rank's own time where F = B = W; it holds 2p chunks, the memory
// of 1F1B. For at least 2p micro-batches.
//
// Source: Qi et al., Pipeline Parallelism with Controllable Memory,
// arXiv:2405.15362, and Zero Bubble, arXiv:2401.10241, section 6.
#ifndef SHARDPROOF_PIPELINE_ZB_V_ZB_V_H_
#define SHARDPROOF_PIPELINE_ZB_V_ZB_V_H_

#include "pipeline/schedule.h"
#include "reference/status.h"

namespace shardproof {

StatusOr<Schedule> ZbVSchedule(const ScheduleShape& shape);

}  // namespace shardproof

#endif  // SHARDPROOF_PIPELINE_ZB_V_ZB_V_H_
