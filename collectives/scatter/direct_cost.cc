#include "collectives/direct/cost.h"
#include "collectives/direct/eager.h"
#include "collectives/direct/slices.h"
#include "collectives/scatter/scatter.h"

namespace shardproof {
namespace {

Cost DirectCost(const Blocks& blocks, DType dtype, int root, Memory memory) {
  if (direct::ByteCount(blocks.Largest(), dtype) <= direct::kEagerLimit) {
    memory = Memory::kShared;
  }
  return direct::InMemory(
      memory, blocks, blocks.parts(), dtype,
      [&](const Blocks& b) { return direct::EachBlockOnce(b, dtype, root); });
}

}  // namespace

Cost ScatterDirectCost(int ranks, int64_t count, DType dtype, Memory memory) {
  return DirectCost(Blocks::Even(count, ranks), dtype, /*root=*/0, memory);
}

Cost ScatterVDirectCost(std::span<const int64_t> counts, DType dtype, int root,
                        Memory memory) {
  return DirectCost(Blocks::Listed(counts), dtype, root, memory);
}

}  // namespace shardproof
