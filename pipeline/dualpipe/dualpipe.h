// DualPipe: micro-batches from both ends of the ranks at once, with two copies of
// the weights. Forward passes of one direction and backward passes of the other
// come in pairs, whose communication and computation can overlap.
//
// Stage s of pipeline 0 is chunk 0 of rank s, stage s of pipeline 1 chunk 1 of
// rank p - 1 - s; the first m / 2 micro-batches go through pipeline 0. With h = p
// / 2 and i a rank's distance from the nearer end, direction 0 being the one that
// begins there, a rank does, B whole and W that of the oldest I that waits,
//
//     F0 x 2 (h - i - 1)         (F0 F1) x (i + 1)     (I1 W F1) x (h - i - 1)
//     (F0&B1 F1&B0) x (m / 2 - p + i + 1)              (B1 F1&B0) x (h - i - 1)
//     (B1 B0) x (i + 1), I in the place of B from the middle on
//     (W I0) x (h - i - 1)       W x (i + 1)
//
// & being pairs, but for the first where i = h - 1. A rank holds p + 1
// micro-batches. The bubble is, with B whole and F&B the time of a pair,
//
//     (p / 2 - 1) (F&B + B - 3W)
//
// where F takes as long as I, and W no longer; that of the ranks with most pairs,
// i = h - 1 and h - 2: each pair less on the way to the ends is F + B - F&B more
// work. One after the other, whose first output has left when the second begins,
// it is (p / 2 - 1) (F + I - W) with equal costs. For an even number of ranks, and
// an even number of micro-batches, at least 2p.
//
// Source: DeepSeek-AI, DeepSeek-V3, arXiv:2412.19437, section 3.2.1, and their
// implementation, github.com/deepseek-ai/DualPipe.
#ifndef SHARDPROOF_PIPELINE_DUALPIPE_DUALPIPE_H_
#define SHARDPROOF_PIPELINE_DUALPIPE_DUALPIPE_H_

#include <array>
#include <vector>

#include "pipeline/schedule.h"
#include "reference/status.h"

namespace shardproof {

StatusOr<Schedule> DualPipeSchedule(const ScheduleShape& shape);

// One way through a rank: the chunk, and the first of its micro-batches, which
// come in order.
struct Direction {
  int chunk = 0;
  int first = 0;
};
// The table above, for `each` micro-batches of each direction, of rank i of h
// from where direction 0 begins to where directions meet; DualPipeV's too.
void AddDualPipeActions(int i, int h, int each,
                        const std::array<Direction, 2>& directions,
                        std::vector<Action>& actions);

// The bubble above, of h ranks from an end to where directions meet.
double DualPipeBubble(int h, const StageCosts& costs);

}  // namespace shardproof

#endif  // SHARDPROOF_PIPELINE_DUALPIPE_DUALPIPE_H_
