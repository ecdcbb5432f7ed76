#include "collectives/broadcast/broadcast.h"
#include "collectives/broadcast/direct.h"
#include "collectives/direct/cost.h"

namespace shardproof {
namespace {

// Each slice is accessed once for each rank but the root.
Cost InSlices(int ranks, int64_t count, DType dtype) {
  Cost cost;
  cost.alpha_count = 1;
  for (int d = 0; d < ranks; ++d) {
    const Chunk slice = BroadcastSlice(count, dtype, ranks, d, false);
    cost.total += direct::Accesses(ranks - 1, slice.count, dtype);
  }
  const Chunk longest = BroadcastSlice(count, dtype, ranks, 0, false);
  cost.beta_bytes =
      static_cast<double>((ranks - 1) * longest.count * SizeOf(dtype));
  return cost;
}

}  // namespace

Cost BroadcastDirectCost(int ranks, int64_t count, DType dtype, Memory memory) {
  Cost cost;
  if (ranks == 1) return cost;
  if (BroadcastIsEager(count, dtype)) {
    cost.alpha_count = 1;
    cost.total = direct::Accesses(ranks - 1, count, dtype);
    cost.beta_bytes = static_cast<double>(count * SizeOf(dtype));
    return cost;
  }
  return direct::InMemory(
      memory, Blocks::Even(count, 1), 1, dtype,
      [&](const Blocks& b) { return InSlices(ranks, b.Count(0), dtype); });
}

}  // namespace shardproof
