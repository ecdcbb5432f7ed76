// What a pass of an overlapped layer does, step by step: a schedule is data, and
// every rank makes its own without a message.
//
// Rank r of t has own_r = BalancedChunk(tokens, t, r). At distance k = 1 .. t - 1
// it sends to rank r + k and receives from rank r - k (mod t), in C messages
// each, so that at no time all ranks send to the same one:
//
//     gather     chunk c of own_r goes to rank r + k; that of rank r - k arrives
//                and can be multiplied
//     scatter    chunk c of own_(r + k) has been multiplied and goes to its rank;
//                rank r - k's term of chunk c of own_r arrives
//
// An exchange is waited for as late as the data allow, and the next one is under
// way meanwhile (k, c in this order are chunks 1, 2, ..., n = (t - 1) C; 0 is
// what the rank has itself):
//
//     gather         start 1, multiply 0, wait 1, start 2, multiply 1, wait 2, ...
//                    multiply n
//     scatter        multiply 1, start 1, multiply 2, wait 1, start 2, ...
//                    multiply n, wait n - 1, start n, multiply 0, wait n, fold
//     both           scatters as above; behind each product one chunk of what
//                    the weight gradient needs is gathered, which is made while
//                    the last scatter is under way
//
// The own chunk comes first where chunks are gathered, and last where they are
// scattered: either way it is the product that needs no message, beside the
// exchange that has no other product. Without overlap every start is followed by
// its wait.
#ifndef SHARDPROOF_LAYERS_OVERLAP_OVERLAP_SCHEDULE_H_
#define SHARDPROOF_LAYERS_OVERLAP_OVERLAP_SCHEDULE_H_

#include <cstdint>
#include <vector>

#include "collectives/chunks.h"

namespace shardproof {

// Rows [out.begin, + out.count) of what is sent go to rank + distance, and rows
// `in` of where is received come from rank - distance.
struct OverlapExchange {
  enum class Flow : uint8_t { kGather, kScatter };
  Flow flow = Flow::kGather;
  int distance = 0;
  Chunk out;  // Gather: of the rank's own tokens. Scatter: of all tokens.
  Chunk in;   // Gather: of all tokens. Scatter: of t - 1 times the own tokens.
};

// Rows [from, from + count) of all tokens, multiplied, are rows from `to` on of
// the result.
struct OverlapProduct {
  int64_t from = 0;
  int64_t to = 0;
  int64_t count = 0;
};

struct OverlapStep {
  enum class Kind : uint8_t {
    kStart,     // Exchange `index`.
    kWait,      // For exchange `index`.
    kMultiply,  // Product `index`.
    kFold,      // The own rows of the result: the sum of all ranks' terms.
    kWeights    // The gradient of the weight, of all tokens.
  };
  Kind kind = Kind::kFold;
  int index = 0;
};

struct OverlapSchedule {
  std::vector<OverlapExchange> exchanges;
  std::vector<OverlapProduct> products;  // The own tokens' is the first.
  std::vector<OverlapStep> steps;
  std::vector<int> summed;  // The ranks whose terms kFold adds up, in order.
};

struct OverlapPlace {
  int64_t tokens = 0;
  int ranks = 1;
  int rank = 0;
  int chunks = 1;  // C, of what one rank has.
  bool overlap = true;

  Chunk own() const { return BalancedChunk(tokens, ranks, rank); }
};

// result = all_gather(x) w, and, with `weights`, kWeights at the end.
OverlapSchedule GatherSchedule(const OverlapPlace& place, bool weights);
// result = reduce_scatter(x w).
OverlapSchedule ScatterSchedule(const OverlapPlace& place);
// The same, and a gather for kWeights. Exchange i is a gather, n + i the scatter
// of product i + 1.
OverlapSchedule ScatterAndGatherSchedule(const OverlapPlace& place);

}  // namespace shardproof

#endif  // SHARDPROOF_LAYERS_OVERLAP_OVERLAP_SCHEDULE_H_
