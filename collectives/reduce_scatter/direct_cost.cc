#include "collectives/direct/cost.h"
#include "collectives/reduce_scatter/reduce_scatter.h"

namespace shardproof {
namespace {

Cost DirectCost(const Blocks& blocks, DType dtype) {
  Cost cost = direct::EachBlockByAllOthers(blocks, dtype);
  cost.gamma_bytes = cost.beta_bytes;
  return cost;
}

}  // namespace

Cost ReduceScatterDirectCost(int ranks, int64_t count, DType dtype) {
  return DirectCost(Blocks::Even(count, ranks), dtype);
}

Cost ReduceScatterVDirectCost(std::span<const int64_t> counts, DType dtype) {
  return DirectCost(Blocks::Listed(counts), dtype);
}

}  // namespace shardproof
