// Times of messages between two ranks, while all others wait.
//
//     PairPlan plan{.bytes = {65536}, .timing = LinkTiming(options, 0.1)};
//     SP_ASSIGN_OR_RETURN(const PairTimes t, MeasurePair(comm, 0, 2, plan));
//     t.latency, t.forward[0].median_us     // 0 -> 2, 65536 bytes
//
// Latency is half of a round trip of 8 bytes, so it is the same in both
// directions: there is no common clock. A larger message is sent and answered
// by 8 bytes; its time is that of both less the latency, in each direction by
// itself. In `both`, the two send at the same time.
#ifndef SHARDPROOF_TOOLS_CLI_PAIR_MEASUREMENT_H_
#define SHARDPROOF_TOOLS_CLI_PAIR_MEASUREMENT_H_

#include <cstdint>
#include <vector>

#include "collectives/communicator.h"
#include "reference/status.h"
#include "tools/harness/measure.h"

namespace shardproof {

inline constexpr int64_t kLatencyBytes = 8;

struct MessageTime {
  double median_us = 0, low_us = 0, high_us = 0;  // 95 percent, of the median.

  // Standard error of the median over it, from the interval taken as normal.
  double RelativeError() const;
};

struct PairPlan {
  std::vector<int64_t> bytes = {};
  bool both = true;  // Also bidirectional.
  MeasureOptions timing = {};
};

struct PairTimes {
  MessageTime latency = {};
  std::vector<MessageTime> forward = {}, backward = {}, both = {};
};

// Collective over `comm`, whose ranks all give the same arguments; the result
// is the same on all.
StatusOr<PairTimes> MeasurePair(const Communicator &comm, int a, int b,
                                const PairPlan &plan);

// Of several measurements of one pair, at least one: medians of their medians.
// The error is that of a measurement and the spread between them, robustly
// (1.4826 MAD), so that one that was disturbed does not count.
PairTimes Combine(const std::vector<PairTimes> &rounds);

}  // namespace shardproof

#endif  // SHARDPROOF_TOOLS_CLI_PAIR_MEASUREMENT_H_
