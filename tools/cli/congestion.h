// What happens to pairs of ranks that send at the same time: whether they share
// something, and which of them is slow by itself.
#ifndef SHARDPROOF_TOOLS_CLI_CONGESTION_H_
#define SHARDPROOF_TOOLS_CLI_CONGESTION_H_

#include <cstdint>
#include <string>
#include <vector>

#include "collectives/communicator.h"
#include "reference/status.h"
#include "reports/interconnect.h"
#include "tools/cli/pair_measurement.h"
#include "tools/harness/measure.h"

namespace shardproof {

// SPMD: ranks r and r + n / 2 of n, for r in [first, first + count), send at
// the same time, one way with an answer of 8 bytes or, with `exchange`, both
// ways at once; the others wait. The time is that of the slowest of them; the
// same on all ranks.
StatusOr<MessageTime> MeasurePairs(const Communicator& comm, int first,
                                   int count, bool exchange, int64_t bytes,
                                   const MeasureOptions& timing);

struct Congestion {
  bool exchange = false;
  int64_t bytes = 0;
  int ranks = 0;
  std::vector<std::string> places = {};    // By rank.
  std::vector<MessageTime> alone = {};     // By pair.
  std::vector<MessageTime> together = {};  // Of the first 1, 2, .. pairs.
};

// Pairs at once should take as long as the slowest of them alone.
std::vector<ScalePoint> PointsOf(const Congestion& congestion,
                                 const std::string& backend);

// In sentences: the pair that is the slowest even alone, where the intervals of
// the slowest and the fastest are apart; and whether all pairs at once take
// longer than the slowest alone does (intervals apart), which is what they
// share.
std::vector<std::string> Bottlenecks(const Congestion& congestion);

}  // namespace shardproof

#endif  // SHARDPROOF_TOOLS_CLI_CONGESTION_H_
