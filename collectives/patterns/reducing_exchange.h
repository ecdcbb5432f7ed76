// One step of every message algorithm that reduces: send a part, receive a part
// and add it to one's own.
#ifndef SHARDPROOF_COLLECTIVES_PATTERNS_REDUCING_EXCHANGE_H_
#define SHARDPROOF_COLLECTIVES_PATTERNS_REDUCING_EXCHANGE_H_

#include <cstdint>

#include "collectives/communicator.h"
#include "collectives/traffic.h"
#include "reference/bounded.h"
#include "reference/dtype.h"
#include "reference/reduce_op.h"
#include "reference/status.h"

namespace shardproof {

// A part travels in segments of this size, the last one shorter: what arrives
// is added while it is still in the cache and the next segment is on its way.
inline constexpr int64_t kSegmentBytes = 256 << 10;

// How partial results are combined. `divisor` is what the whole reduction is
// divided by (p for kAvg, else 1); steps that finish an element apply it.
struct Combine {
  DType dtype = DType::kF32;
  ReduceOp op = ReduceOp::kSum;
  int divisor = 1;

  static Combine For(DType dtype, ReduceOp op, int ranks) {
    return {dtype, op, op == ReduceOp::kAvg ? ranks : 1};
  }
};

// Counts are in elements; -1 stands for nobody. `result` may be `own` and may
// overlap `out`, except that out == result requires equal counts.
struct ReducingStep {
  int to = -1;
  const void* out = nullptr;
  int64_t out_count = 0;
  int from = -1;
  const void* own = nullptr;
  void* result = nullptr;
  int64_t count = 0;
  bool finishes = false;  // Divide by the divisor.
};

// Sends out[0, out_count) to `to` and receives x[0, count) from `from`:
//
//     result[i] = own[i] op x[i]
//
// with the lower rank's operand on the left, so that two partners that exchange
// their vectors compute the same bits.
Status ReducingExchange(const Communicator& comm, const Combine& combine,
                        const ReducingStep& step);

// What ReducingExchange does to a contribution that passes through `additions`
// of them on its way: each adds in Accumulator(dtype) and rounds to dtype, in
// which everything travels; kPremulSum rounds each scaled input too.
Arithmetic ExchangeArithmetic(int ranks, DType dtype, ReduceOp op,
                              int additions);

// The traffic of `count` elements sent so, and of those sent as one message.
Traffic InSegments(int64_t count, DType dtype);
Traffic InOneMessage(int64_t count, DType dtype);

}  // namespace shardproof

#endif  // SHARDPROOF_COLLECTIVES_PATTERNS_REDUCING_EXCHANGE_H_
