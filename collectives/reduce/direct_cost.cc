#include "collectives/direct/cost.h"
#include "collectives/reduce/direct.h"
#include "collectives/reduce/reduce.h"

namespace shardproof {
namespace {

// Each slice is loaded from all others, and stored at the root unless it is the
// root's own, the first.
Cost InSlices(int ranks, int64_t count, DType dtype) {
  Cost cost;
  cost.alpha_count = 1;
  for (int d = 0; d < ranks; ++d) {
    const int64_t slice = direct::Slice(count, dtype, ranks, d).count;
    cost.total += direct::Accesses(d == 0 ? ranks - 1 : ranks, slice, dtype);
  }
  const auto longest = static_cast<double>(
      direct::Slice(count, dtype, ranks, 0).count * SizeOf(dtype));
  cost.beta_bytes = ranks * longest;
  cost.gamma_bytes = (ranks - 1) * longest;
  return cost;
}

}  // namespace

Cost ReduceDirectCost(int ranks, int64_t count, DType dtype, Memory memory) {
  Cost cost;
  if (ranks == 1) return cost;
  if (ReduceIsEager(count, dtype)) {
    cost.alpha_count = 1;
    cost.total = direct::Accesses(ranks - 1, count, dtype);
    cost.beta_bytes = static_cast<double>(cost.total.bytes);
    cost.gamma_bytes = cost.beta_bytes;
    return cost;
  }
  return direct::InMemory(
      memory, Blocks::Even(count, 1), 1, dtype,
      [&](const Blocks& b) { return InSlices(ranks, b.Count(0), dtype); });
}

}  // namespace shardproof
