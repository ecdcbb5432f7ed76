// Costs of the message variants; those of the direct ones stand beside them.
#include "collectives/all_to_all/all_to_all.h"
#include "collectives/patterns/reducing_exchange.h"

namespace shardproof {

Cost AllToAllPairwiseCost(int ranks, int64_t count, DType dtype) {
  const Traffic block = InOneMessage(count, dtype);
  Cost cost;
  cost.alpha_count = static_cast<double>((ranks - 1) * block.messages);
  cost.beta_bytes = static_cast<double>((ranks - 1) * block.bytes);
  const int64_t pairs = int64_t{ranks} * (ranks - 1);
  cost.total = {pairs * block.bytes, pairs * block.messages};
  return cost;
}

Cost AllToAllBruckCost(int ranks, int64_t count, DType dtype) {
  Cost cost;
  for (int d = 1; d < ranks; d *= 2) {
    int blocks = 0;
    for (int i = d; i < ranks; ++i) blocks += (i & d) != 0;
    const Traffic sent = InOneMessage(blocks * count, dtype);
    cost.alpha_count += static_cast<double>(sent.messages);
    cost.beta_bytes += static_cast<double>(sent.bytes);
    for (int r = 0; r < ranks; ++r) cost.total += sent;
  }
  return cost;
}

Cost AllToAllVPairwiseCost(int ranks, std::span<const int64_t> counts,
                           DType dtype) {
  Cost cost;
  for (int k = 1; k < ranks; ++k) {
    Traffic largest;
    for (int r = 0; r < ranks; ++r) {
      const auto pair = static_cast<size_t>(r * ranks + (r + k) % ranks);
      const Traffic block = InOneMessage(counts[pair], dtype);
      cost.total += block;
      if (block.bytes > largest.bytes) largest = block;
    }
    cost.alpha_count += static_cast<double>(largest.messages);
    cost.beta_bytes += static_cast<double>(largest.bytes);
  }
  return cost;
}

}  // namespace shardproof
