// Chimera: 1F1B from both ends of the ranks at once, with two copies of the
// weights, each way in the idle slots of the other.
//
// Stage s of pipeline 0 is chunk 0 of rank s, stage s of pipeline 1 chunk 1 of
// rank p - 1 - s. Of every p micro-batches the first half goes through pipeline 0,
// the second half through pipeline 1. In slots of one action each, number j = 0 ..
// p / 2 - 1 of its half, of p micro-batches number u, has at stage s
//
//     F in slot 2 p u + 2 j + s        B in slot 2 p u + 2 j + 2 p - 1 - s
//
// On a rank the two ways differ in parity, and units follow each other without a
// gap ("direct concatenation"). So a rank is idle for p - 2 slots: where F takes as
// long as the whole B, (p - 2) / (2 m + p - 2) of all time (idle / total, the
// paper's fraction). Else a slot is as long as its longest action, and where unit
// meets unit p - 2 slots have both: the bubble is
//
//     (p - 2) (max(F, B) + (m / p - 1) |F - B|)
//
// For m = p and B = 2F that is the paper's (p - 2) / (3 m / 2 + p - 2). A rank,
// number i from the nearer end, holds p / 2 + 1 + i micro-batches. For an even
// number of ranks p and a multiple of p micro-batches.
//
// Source: Li and Hoefler, Chimera, arXiv:2107.06925, sections 3.1 and 3.5.
#ifndef SHARDPROOF_PIPELINE_CHIMERA_CHIMERA_H_
#define SHARDPROOF_PIPELINE_CHIMERA_CHIMERA_H_

#include "pipeline/schedule.h"
#include "reference/status.h"

namespace shardproof {

StatusOr<Schedule> ChimeraSchedule(const ScheduleShape& shape);

}  // namespace shardproof

#endif  // SHARDPROOF_PIPELINE_CHIMERA_CHIMERA_H_
