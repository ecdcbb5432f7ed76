// Costs of the message variants; those of the direct ones stand beside them.
#include <algorithm>

#include "collectives/all_gather/all_gather.h"
#include "collectives/chunks.h"
#include "collectives/patterns/binomial.h"
#include "collectives/patterns/halving.h"
#include "collectives/patterns/ring.h"

namespace shardproof {
namespace {

Cost BruckCost(const Blocks& blocks, DType dtype) {
  const int p = blocks.parts();
  Cost cost;
  for (int have = 1; have < p; have *= 2) {
    Traffic largest;
    for (int r = 0; r < p; ++r) {
      const TreeBlocks rotated{blocks, r};
      const Traffic sent =
          InOneMessage(rotated.Sum(0, std::min(have, p - have)), dtype);
      cost.total += sent;
      if (sent.bytes > largest.bytes) largest = sent;
    }
    cost.alpha_count += static_cast<double>(largest.messages);
    cost.beta_bytes += static_cast<double>(largest.bytes);
  }
  return cost;
}

}  // namespace

Cost AllGatherRingCost(int ranks, int64_t count, DType dtype) {
  return RingAllGatherCost(Blocks::Even(count, ranks), dtype);
}
Cost AllGatherVRingCost(std::span<const int64_t> counts, DType dtype) {
  return RingAllGatherCost(Blocks::Listed(counts), dtype);
}

// Excess ranks add one block up and all p blocks down to the table's lg p alpha
// + n(p-1)/p beta, which holds for powers of two.
Cost AllGatherRecursiveDoublingCost(int ranks, int64_t count, DType dtype) {
  const Regions regions = Regions::OfRanks(Blocks::Even(count, ranks));
  Cost fold;
  const Traffic block = InOneMessage(count, dtype);
  for (int i = 0; i < regions.fold().excess(); ++i) fold.total += block;
  if (regions.fold().excess() > 0) {
    fold.alpha_count = static_cast<double>(block.messages);
    fold.beta_bytes = static_cast<double>(block.bytes);
  }
  return fold + DoublingAllGatherCost(regions, dtype) +
         UnfoldCost(regions, dtype);
}

Cost AllGatherBruckCost(int ranks, int64_t count, DType dtype) {
  return BruckCost(Blocks::Even(count, ranks), dtype);
}
Cost AllGatherVBruckCost(std::span<const int64_t> counts, DType dtype) {
  return BruckCost(Blocks::Listed(counts), dtype);
}

}  // namespace shardproof
