// What rings of attention do on this machine, and what they could do.
#ifndef SHARDPROOF_ATTENTION_SPEED_RING_SPEED_H_
#define SHARDPROOF_ATTENTION_SPEED_RING_SPEED_H_

#include <cstdint>

#include "reference/dtype.h"
#include "reference/status.h"

namespace shardproof {

struct RingSpeedOptions {
  int rounds = 5;
  int ranks = 0;  // 0: 4 for the balance, 2 for the overlap, 8 for the length.
  int64_t tokens = 0;  // 0: 8192; 131072 for the length.
  int64_t heads = 0;   // 0: 4; 2 for the length. One KV head.
  int64_t head_dim = 128;
  DType dtype = DType::kBF16;
  bool smoke = false;  // Small; measures nothing that one could quote.
};

// Causal rings over the three layouts: how well they could balance, by counted
// pairs of queries and keys, and how well they do, by the processor time of each
// step.
Status BalanceSpeed(const RingSpeedOptions& asked);
// Of one pass of the ring, what is computing, what waiting for others that have
// more to compute, and what communication that nothing hides.
Status OverlapSpeed(const RingSpeedOptions& asked);
// A long sequence over many ranks: time, and the most memory beside the formula.
Status LengthSpeed(const RingSpeedOptions& asked);

}  // namespace shardproof

#endif  // SHARDPROOF_ATTENTION_SPEED_RING_SPEED_H_
