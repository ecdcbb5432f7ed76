#include "collectives/all_gather/all_gather.h"
#include "collectives/direct/cost.h"

namespace shardproof {

Cost AllGatherDirectCost(int ranks, int64_t count, DType dtype) {
  return direct::EachBlockByAllOthers(Blocks::Even(count, ranks), dtype);
}

Cost AllGatherVDirectCost(std::span<const int64_t> counts, DType dtype) {
  return direct::EachBlockByAllOthers(Blocks::Listed(counts), dtype);
}

}  // namespace shardproof
