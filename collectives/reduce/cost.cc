// Costs and arithmetic of the message variants; that of the direct one stands
// beside it.
#include "collectives/patterns/binomial.h"
#include "collectives/patterns/halving.h"
#include "collectives/patterns/reducing_exchange.h"
#include "collectives/reduce/reduce.h"

namespace shardproof {

Cost ReduceBinomialCost(int ranks, int64_t count, DType dtype) {
  Cost cost = BinomialCost(ranks, InSegments(count, dtype));
  cost.gamma_bytes = cost.beta_bytes;
  return cost;
}

Cost ReduceScatterGatherCost(int ranks, int64_t count, DType dtype) {
  const Regions regions = Regions::Balanced(ranks, count);
  return HalvingReduceScatterCost(regions, dtype) +
         BinomialRunsCost({Blocks::Balanced(count, regions.fold().power()), 0},
                          dtype);
}

Arithmetic ReduceBinomialArithmetic(int ranks, DType dtype, ReduceOp op) {
  return ExchangeArithmetic(ranks, dtype, op, CeilLog2(ranks));
}
Arithmetic ReduceScatterGatherArithmetic(int ranks, DType dtype, ReduceOp op) {
  return ExchangeArithmetic(ranks, dtype, op,
                            Regions::Balanced(ranks, 0).Additions());
}

}  // namespace shardproof
