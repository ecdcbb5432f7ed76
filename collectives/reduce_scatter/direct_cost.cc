#include "collectives/direct/cost.h"
#include "collectives/direct/eager.h"
#include "collectives/direct/slices.h"
#include "collectives/reduce_scatter/reduce_scatter.h"

namespace shardproof {
namespace {

Cost DirectCost(const Blocks& blocks, DType dtype, Memory memory) {
  if (direct::ByteCount(blocks.Total(), dtype) <= direct::kEagerLimit) {
    memory = Memory::kShared;
  }
  Cost cost = direct::InMemory(
      memory, blocks, blocks.parts(), dtype,
      [&](const Blocks& b) { return direct::EachBlockByAllOthers(b, dtype); });
  cost.gamma_bytes = cost.beta_bytes;
  return cost;
}

}  // namespace

Cost ReduceScatterDirectCost(int ranks, int64_t count, DType dtype,
                             Memory memory) {
  return DirectCost(Blocks::Even(count, ranks), dtype, memory);
}

Cost ReduceScatterVDirectCost(std::span<const int64_t> counts, DType dtype,
                              Memory memory) {
  return DirectCost(Blocks::Listed(counts), dtype, memory);
}

}  // namespace shardproof
