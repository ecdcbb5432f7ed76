#include "collectives/all_gather/all_gather.h"
#include "collectives/direct/cost.h"
#include "collectives/direct/eager.h"
#include "collectives/direct/slices.h"

namespace shardproof {
namespace {

Cost DirectCost(const Blocks& blocks, DType dtype, Memory memory) {
  if (direct::ByteCount(blocks.Largest(), dtype) <= direct::kEagerLimit) {
    memory = Memory::kShared;
  }
  return direct::InMemory(
      memory, blocks, blocks.parts(), dtype,
      [&](const Blocks& b) { return direct::EachBlockByAllOthers(b, dtype); });
}

}  // namespace

Cost AllGatherDirectCost(int ranks, int64_t count, DType dtype, Memory memory) {
  return DirectCost(Blocks::Even(count, ranks), dtype, memory);
}

Cost AllGatherVDirectCost(std::span<const int64_t> counts, DType dtype,
                          Memory memory) {
  return DirectCost(Blocks::Listed(counts), dtype, memory);
}

}  // namespace shardproof
