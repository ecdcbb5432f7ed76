// Costs of the message variants; that of the direct one stands beside it.
#include "collectives/broadcast/broadcast.h"
#include "collectives/chunks.h"
#include "collectives/patterns/binomial.h"
#include "collectives/patterns/reducing_exchange.h"
#include "collectives/patterns/ring.h"

namespace shardproof {

Cost BroadcastBinomialCost(int ranks, int64_t count, DType dtype) {
  return BinomialCost(ranks, InOneMessage(count, dtype));
}

Cost BroadcastScatterAllGatherCost(int ranks, int64_t count, DType dtype) {
  const Blocks chunks = Blocks::Balanced(count, ranks);
  return BinomialRunsCost({chunks, 0}, dtype) +
         RingAllGatherCost(chunks, dtype);
}

Cost BroadcastChainCost(int ranks, int64_t count, DType dtype) {
  Cost cost;
  const int64_t bytes = count * SizeOf(dtype);
  if (ranks == 1 || bytes == 0) return cost;
  const int64_t segments = BroadcastChainSegments(bytes);
  const int64_t largest = BalancedChunk(bytes, segments, 0).count;
  cost.alpha_count = static_cast<double>(ranks + segments - 2);
  cost.beta_bytes = cost.alpha_count * static_cast<double>(largest);
  cost.total = {bytes * (ranks - 1), segments * (ranks - 1)};
  return cost;
}

}  // namespace shardproof
