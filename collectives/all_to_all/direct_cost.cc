#include <algorithm>

#include "collectives/all_to_all/all_to_all.h"
#include "collectives/direct/cost.h"

namespace shardproof {

Cost AllToAllDirectCost(int ranks, int64_t count, DType dtype) {
  return direct::EachBlockByAllOthers(Blocks::Even(count, ranks), dtype);
}

Cost AllToAllVDirectCost(int ranks, std::span<const int64_t> counts,
                         DType dtype) {
  Cost cost;
  for (int r = 0; r < ranks; ++r) {
    Traffic loaded;  // By rank r.
    for (int s = 0; s < ranks; ++s) {
      if (s == r) continue;
      loaded += direct::Accesses(1, counts[static_cast<size_t>(s * ranks + r)],
                                 dtype);
    }
    cost.total += loaded;
    cost.beta_bytes =
        std::max(cost.beta_bytes, static_cast<double>(loaded.bytes));
  }
  cost.alpha_count = ranks == 1 ? 0 : 2;  // The offsets, then the addresses.
  return cost;
}

}  // namespace shardproof
