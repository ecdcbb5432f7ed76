// Costs and arithmetic of the message variants; those of the direct ones stand
// beside them.
#include <algorithm>

#include "collectives/chunks.h"
#include "collectives/patterns/halving.h"
#include "collectives/patterns/reducing_exchange.h"
#include "collectives/patterns/ring.h"
#include "collectives/reduce_scatter/reduce_scatter.h"

namespace shardproof {
namespace {

// In every step each rank receives its own block: a rank with the largest one
// does so in each.
Cost PairwiseCost(const Blocks& blocks, DType dtype) {
  Cost cost;
  const Traffic largest = InSegments(blocks.Largest(), dtype);
  for (int k = 1; k < blocks.parts(); ++k) {
    cost.alpha_count += static_cast<double>(largest.messages);
    cost.beta_bytes += static_cast<double>(largest.bytes);
    for (int r = 0; r < blocks.parts(); ++r) {
      cost.total += InSegments(blocks.Count(r), dtype);
    }
  }
  cost.gamma_bytes = cost.beta_bytes;
  return cost;
}

// Unlike the table's lg p alpha + n(p-1)/p (beta + gamma), which holds for
// powers of two, excess ranks add (alpha + n (beta + gamma)) for folding and
// one block for getting their result.
Cost HalvingCost(const Blocks& blocks, DType dtype) {
  const Regions regions = Regions::OfRanks(blocks);
  Cost cost = HalvingReduceScatterCost(regions, dtype);
  Traffic largest;
  for (int i = 0; i < regions.fold().excess(); ++i) {
    const Traffic block = InOneMessage(blocks.Count(2 * i + 1), dtype);
    cost.total += block;
    if (block.bytes > largest.bytes) largest = block;
  }
  cost.alpha_count += static_cast<double>(largest.messages);
  cost.beta_bytes += static_cast<double>(largest.bytes);
  return cost;
}

}  // namespace

Cost ReduceScatterRingCost(int ranks, int64_t count, DType dtype) {
  return RingReduceScatterCost(Blocks::Even(count, ranks), dtype);
}
Cost ReduceScatterVRingCost(std::span<const int64_t> counts, DType dtype) {
  return RingReduceScatterCost(Blocks::Listed(counts), dtype);
}

Cost ReduceScatterPairwiseCost(int ranks, int64_t count, DType dtype) {
  return PairwiseCost(Blocks::Even(count, ranks), dtype);
}
Cost ReduceScatterVPairwiseCost(std::span<const int64_t> counts, DType dtype) {
  return PairwiseCost(Blocks::Listed(counts), dtype);
}

Cost ReduceScatterHalvingCost(int ranks, int64_t count, DType dtype) {
  return HalvingCost(Blocks::Even(count, ranks), dtype);
}
Cost ReduceScatterVHalvingCost(std::span<const int64_t> counts, DType dtype) {
  return HalvingCost(Blocks::Listed(counts), dtype);
}

Arithmetic ReduceScatterRingArithmetic(int ranks, DType dtype, ReduceOp op) {
  return ExchangeArithmetic(ranks, dtype, op, ranks - 1);
}
Arithmetic ReduceScatterPairwiseArithmetic(int ranks, DType dtype,
                                           ReduceOp op) {
  return ExchangeArithmetic(ranks, dtype, op, ranks - 1);
}
Arithmetic ReduceScatterHalvingArithmetic(int ranks, DType dtype, ReduceOp op) {
  return ExchangeArithmetic(ranks, dtype, op,
                            Regions::Balanced(ranks, 0).Additions());
}

}  // namespace shardproof
