// Interleaved 1F1B: v chunks on each rank, so that the bubble is a v-th.
//
// Stage s is on rank s mod p. Forward pass number k of a rank is micro-batch (k /
// (p v)) p + k mod p of chunk (k / p) mod v, the backward pass the same with the
// chunks the other way round. Rank i warms up with w = min(2 (p - i - 1) + (v -
// 1) p, m v) F, then (F, B) x (m v - w), then B x w.
//
// The bubble is (p - 1)(F + B + W) / v; rank i holds min(w + 1, m v) chunks. Needs
// a multiple of p micro-batches.
//
// Source: Narayanan et al., arXiv:2104.04473, section 2.2.
#ifndef SHARDPROOF_PIPELINE_INTERLEAVED_INTERLEAVED_H_
#define SHARDPROOF_PIPELINE_INTERLEAVED_INTERLEAVED_H_

#include "pipeline/schedule.h"
#include "reference/status.h"

namespace shardproof {

StatusOr<Schedule> InterleavedSchedule(const ScheduleShape& shape);

}  // namespace shardproof

#endif  // SHARDPROOF_PIPELINE_INTERLEAVED_INTERLEAVED_H_
