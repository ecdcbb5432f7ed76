// Costs of the message variants; those of the direct ones stand beside them.
#include "collectives/chunks.h"
#include "collectives/patterns/binomial.h"
#include "collectives/scatter/scatter.h"

namespace shardproof {

Cost ScatterBinomialCost(int ranks, int64_t count, DType dtype) {
  return BinomialRunsCost({Blocks::Even(count, ranks), 0}, dtype);
}
Cost ScatterVBinomialCost(std::span<const int64_t> counts, DType dtype,
                          int root) {
  return BinomialRunsCost({Blocks::Listed(counts), root}, dtype);
}

Cost ScatterLinearCost(int ranks, int64_t count, DType dtype) {
  return LinearCost(Blocks::Even(count, ranks), dtype, /*root=*/0);
}
Cost ScatterVLinearCost(std::span<const int64_t> counts, DType dtype,
                        int root) {
  return LinearCost(Blocks::Listed(counts), dtype, root);
}

}  // namespace shardproof
