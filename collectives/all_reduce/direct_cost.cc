#include "collectives/all_reduce/all_reduce.h"
#include "collectives/all_reduce/direct.h"
#include "collectives/direct/cost.h"
#include "collectives/direct/eager.h"
#include "collectives/direct/slices.h"

namespace shardproof {
namespace {

Cost OneShot(int ranks, int64_t count, DType dtype) {
  Cost cost = direct::EachBlockByAllOthers(Blocks::Even(count, ranks), dtype);
  cost.gamma_bytes = cost.beta_bytes;
  return cost;
}

Cost TwoShot(int ranks, int64_t count, DType dtype) {
  Cost cost;
  if (ranks == 1) return cost;
  for (int r = 0; r < ranks; ++r) {
    const int64_t slice = direct::Slice(count, dtype, ranks, r).count;
    cost.total += direct::Accesses(2 * (ranks - 1), slice, dtype);
  }
  const int64_t longest = direct::Slice(count, dtype, ranks, 0).count;
  cost.alpha_count = 2;
  cost.gamma_bytes = static_cast<double>((ranks - 1) * longest * SizeOf(dtype));
  cost.beta_bytes = 2 * cost.gamma_bytes;
  return cost;
}

}  // namespace

Cost AllReduceOneShotCost(int ranks, int64_t count, DType dtype,
                          Memory memory) {
  if (direct::ByteCount(count, dtype) <= direct::kEagerLimit) {
    return OneShot(ranks, count, dtype);
  }
  return direct::InMemory(
      memory, Blocks::Even(count, 1), 1, dtype,
      [&](const Blocks& b) { return OneShot(ranks, b.Count(0), dtype); });
}

Cost AllReduceTwoShotCost(int ranks, int64_t count, DType dtype,
                          Memory memory) {
  return direct::InMemory(
      memory, Blocks::Even(count, 1), 1, dtype,
      [&](const Blocks& b) { return TwoShot(ranks, b.Count(0), dtype); });
}

Cost AllReduceDirectCost(int ranks, int64_t count, DType dtype, Memory memory) {
  return OneShotIsFaster(ranks, count, dtype)
             ? AllReduceOneShotCost(ranks, count, dtype, memory)
             : AllReduceTwoShotCost(ranks, count, dtype, memory);
}

}  // namespace shardproof
