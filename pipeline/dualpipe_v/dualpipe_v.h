// DualPipeV: the V of DualPipe cut in half. Forward passes of one chunk and
// backward passes of the other come in pairs, whose communication and computation
// can overlap.
//
// Stage s < p is chunk 0 of rank s, stage s >= p chunk 1 of rank 2p - 1 - s. Rank
// i does, B whole and W that of the oldest I that waits,
//
//     F0 x 2 (p - i - 1)         (F0 F1) x (i + 1)     (I1 W F1) x (p - i - 1)
//     (F0&B1 F1&B0) x (m - 2p + i + 1)                 (B1 F1&B0) x (p - i - 1)
//     (B1 B0) x (i + 1), I in the place of B from the middle on
//     (W I0) x (p - i - 1)       W x (i + 1)
//
// & being pairs, but for the first on the last rank. A rank holds 2p + 1 chunks.
// The bubble is that of DualPipe on 2p ranks, of chunks: (p - 1)(F&B + B - 3W), and
// (p - 1)(F + I - W) one after the other; dualpipe.h says where. For at least 2p
// micro-batches.
//
// Sources: DeepSeek-AI, DeepSeek-V3, arXiv:2412.19437, section 3.2.1; Qi et al.,
// DualPipe could be better without the Dual (2025).
#ifndef SHARDPROOF_PIPELINE_DUALPIPE_V_DUALPIPE_V_H_
#define SHARDPROOF_PIPELINE_DUALPIPE_V_DUALPIPE_V_H_

#include "pipeline/schedule.h"
#include "reference/status.h"

namespace shardproof {

StatusOr<Schedule> DualPipeVSchedule(const ScheduleShape& shape);

}  // namespace shardproof

#endif  // SHARDPROOF_PIPELINE_DUALPIPE_V_DUALPIPE_V_H_
