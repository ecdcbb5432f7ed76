#include "collectives/all_reduce/all_reduce.h"
#include "collectives/all_reduce/direct.h"
#include "collectives/direct/cost.h"
#include "collectives/direct/slices.h"

namespace shardproof {

Cost AllReduceOneShotCost(int ranks, int64_t count, DType dtype) {
  Cost cost = direct::EachBlockByAllOthers(Blocks::Even(count, ranks), dtype);
  cost.gamma_bytes = cost.beta_bytes;
  return cost;
}

Cost AllReduceTwoShotCost(int ranks, int64_t count, DType dtype) {
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

Cost AllReduceDirectCost(int ranks, int64_t count, DType dtype) {
  return OneShotIsFaster(ranks, count, dtype)
             ? AllReduceOneShotCost(ranks, count, dtype)
             : AllReduceTwoShotCost(ranks, count, dtype);
}

}  // namespace shardproof
