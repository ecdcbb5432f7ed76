// Costs and arithmetic of the message variants; those of the direct ones stand
// beside them.
#include <algorithm>
#include <vector>

#include "collectives/all_gather/all_gather.h"
#include "collectives/all_reduce/all_reduce.h"
#include "collectives/all_reduce/hierarchy.h"
#include "collectives/chunks.h"
#include "collectives/patterns/halving.h"
#include "collectives/patterns/ring.h"
#include "collectives/reduce_scatter/reduce_scatter.h"

namespace shardproof {

Cost AllReduceRingCost(int ranks, int64_t count, DType dtype) {
  const Blocks chunks = Blocks::Balanced(count, ranks);
  return RingReduceScatterCost(chunks, dtype) +
         RingAllGatherCost(chunks, dtype);
}

Cost AllReduceRecursiveDoublingCost(int ranks, int64_t count, DType dtype) {
  const Regions regions = Regions::Balanced(ranks, count);
  const Traffic vector = InSegments(count, dtype);
  Cost rounds;
  for (int mask = 1; mask < regions.fold().power(); mask *= 2) {
    rounds.alpha_count += static_cast<double>(vector.messages);
    rounds.beta_bytes += static_cast<double>(vector.bytes);
    rounds.gamma_bytes += static_cast<double>(vector.bytes);
    for (int g = 0; g < regions.fold().power(); ++g) rounds.total += vector;
  }
  return FoldInCost(regions, dtype) + rounds + UnfoldCost(regions, dtype);
}

Cost AllReduceRabenseifnerCost(int ranks, int64_t count, DType dtype) {
  const Regions regions = Regions::Balanced(ranks, count);
  return HalvingReduceScatterCost(regions, dtype) +
         DoublingAllGatherCost(regions, dtype) + UnfoldCost(regions, dtype);
}

namespace {

// Of groups that work at the same time: the slowest counts.
void AddBeside(Cost& all, const Cost& one) {
  all.alpha_count = std::max(all.alpha_count, one.alpha_count);
  all.beta_bytes = std::max(all.beta_bytes, one.beta_bytes);
  all.gamma_bytes = std::max(all.gamma_bytes, one.gamma_bytes);
  all.total += one.total;
}

std::vector<int64_t> GroupSizes(const Topology& topology) {
  std::vector<int64_t> sizes;
  for (int group : HierarchyGroups(topology)) {
    sizes.resize(std::max(sizes.size(), static_cast<size_t>(group) + 1));
    ++sizes[static_cast<size_t>(group)];
  }
  return sizes;
}

}  // namespace

Cost AllReduceHierarchicalCost(const Topology& topology, int64_t count,
                               DType dtype) {
  if (topology.node_of.size() == 1) return {};
  const std::vector<int64_t> sizes = GroupSizes(topology);
  const int64_t chunks = *std::min_element(sizes.begin(), sizes.end());
  Cost scatter, across, gather;
  for (const int64_t size : sizes) {
    std::vector<int64_t> counts(static_cast<size_t>(size));
    for (int64_t i = 0; i < chunks; ++i) {
      counts[static_cast<size_t>(i)] = BalancedChunk(count, chunks, i).count;
    }
    AddBeside(scatter, ReduceScatterVPairwiseCost(counts, dtype));
    AddBeside(gather, AllGatherVRingCost(counts, dtype));
  }
  const int groups = static_cast<int>(sizes.size());
  for (int64_t i = 0; i < chunks; ++i) {
    const int64_t chunk = BalancedChunk(count, chunks, i).count;
    AddBeside(across, chunk * SizeOf(dtype) < kRingAcrossBytes
                          ? AllReduceRecursiveDoublingCost(groups, chunk, dtype)
                          : AllReduceRingCost(groups, chunk, dtype));
  }
  return scatter + across + gather;
}

Arithmetic AllReduceRingArithmetic(int ranks, DType dtype, ReduceOp op) {
  return ExchangeArithmetic(ranks, dtype, op, ranks - 1);
}
Arithmetic AllReduceRecursiveDoublingArithmetic(int ranks, DType dtype,
                                                ReduceOp op) {
  return ExchangeArithmetic(ranks, dtype, op,
                            Regions::Balanced(ranks, 0).Additions());
}
Arithmetic AllReduceRabenseifnerArithmetic(int ranks, DType dtype,
                                           ReduceOp op) {
  return ExchangeArithmetic(ranks, dtype, op,
                            Regions::Balanced(ranks, 0).Additions());
}

// Pairwise inside the largest group, then at most a ring across; an average is
// divided in a step, and with a rounding, of its own.
Arithmetic AllReduceHierarchicalArithmetic(const Topology& topology,
                                           DType dtype, ReduceOp op) {
  const std::vector<int64_t> sizes = GroupSizes(topology);
  const auto largest = static_cast<int>(*std::ranges::max_element(sizes));
  const auto groups = static_cast<int>(sizes.size());
  Arithmetic arithmetic =
      ExchangeArithmetic(static_cast<int>(topology.node_of.size()), dtype, op,
                         largest - 1 + groups - 1);
  if (op == ReduceOp::kAvg) ++arithmetic.wire_roundings;
  return arithmetic;
}

}  // namespace shardproof
