#include <algorithm>

#include "collectives/all_to_all/all_to_all.h"
#include "collectives/direct/cost.h"
#include "collectives/direct/eager.h"
#include "collectives/direct/slices.h"

namespace shardproof {
namespace {

// counts.Count(s * ranks + r) elements go from rank s to rank r.
Cost Pulled(int ranks, const Blocks& counts, DType dtype) {
  Cost cost;
  for (int r = 0; r < ranks; ++r) {
    Traffic loaded;  // By rank r.
    for (int s = 0; s < ranks; ++s) {
      if (s == r) continue;
      loaded += direct::Accesses(1, counts.Count(s * ranks + r), dtype);
    }
    cost.total += loaded;
    cost.beta_bytes =
        std::max(cost.beta_bytes, static_cast<double>(loaded.bytes));
  }
  cost.alpha_count = ranks == 1 ? 0 : 2;  // The offsets, then the addresses.
  return cost;
}

}  // namespace

Cost AllToAllDirectCost(int ranks, int64_t count, DType dtype, Memory memory) {
  const Blocks blocks = Blocks::Even(count, ranks);
  if (direct::ByteCount(blocks.Total(), dtype) <= direct::kEagerLimit) {
    memory = Memory::kShared;
  }
  return direct::InMemory(memory, blocks, ranks, dtype, [&](const Blocks& b) {
    return direct::EachBlockByAllOthers(b, dtype);
  });
}

Cost AllToAllVDirectCost(int ranks, std::span<const int64_t> counts,
                         DType dtype, Memory memory) {
  return direct::InMemory(
      memory, Blocks::Listed(counts), ranks, dtype,
      [&](const Blocks& b) { return Pulled(ranks, b, dtype); });
}

}  // namespace shardproof
