#include "collectives/direct/cost.h"
#include "collectives/scatter/scatter.h"

namespace shardproof {

Cost ScatterDirectCost(int ranks, int64_t count, DType dtype) {
  return direct::EachBlockOnce(Blocks::Even(count, ranks), dtype, /*root=*/0);
}

Cost ScatterVDirectCost(std::span<const int64_t> counts, DType dtype,
                        int root) {
  return direct::EachBlockOnce(Blocks::Listed(counts), dtype, root);
}

}  // namespace shardproof
