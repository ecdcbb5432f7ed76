// The costs of direct operations: each counts the flag rounds before the last
// byte is there as messages on the critical path (the parting is not one: no
// byte waits for it), and the bytes that one rank loads from and stores to
// others.
#ifndef SHARDPROOF_COLLECTIVES_DIRECT_COST_H_
#define SHARDPROOF_COLLECTIVES_DIRECT_COST_H_

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "collectives/chunks.h"
#include "collectives/direct/cut.h"
#include "collectives/traffic.h"
#include "reference/dtype.h"

namespace shardproof::direct {

// `times` accesses of `count` elements each; of nothing there are none.
inline Traffic Accesses(int64_t times, int64_t count, DType dtype) {
  if (count == 0) return {};
  return {times * count * SizeOf(dtype), times};
}

// Every rank accesses the block of every other: all_gather, reduce_scatter.
inline Cost EachBlockByAllOthers(const Blocks& blocks, DType dtype) {
  const int p = blocks.parts();
  Cost cost;
  for (int r = 0; r < p; ++r) {
    cost.total += Accesses(p - 1, blocks.Count(r), dtype);
  }
  if (p == 1) return cost;
  cost.alpha_count = 1;
  cost.beta_bytes =
      static_cast<double>((p - 1) * blocks.Largest() * SizeOf(dtype));
  return cost;
}

// One rank accesses the block of every other, or every other accesses its block
// of one rank: gather, scatter.
inline Cost EachBlockOnce(const Blocks& blocks, DType dtype, int root) {
  Cost cost;
  for (int r = 0; r < blocks.parts(); ++r) {
    if (r == root) continue;
    const Traffic block = Accesses(1, blocks.Count(r), dtype);
    cost.total += block;
    cost.beta_bytes =
        std::max(cost.beta_bytes, static_cast<double>(block.bytes));
    cost.alpha_count = 1;
  }
  return cost;
}

// The cost of an operation whose ranks have `parts` blocks, `blocks` among them,
// on the side that has more: cost_of(blocks), or, in ordinary memory, that of the
// blocks of every chunk, one after another.
template <class CostOf>
Cost InMemory(Memory memory, const Blocks& blocks, int parts, DType dtype,
              const CostOf& cost_of) {
  if (memory == Memory::kShared) return cost_of(blocks);
  const Cut cut = Cut::Of(parts, blocks.Largest(), dtype, ChunkSize::kSmall);
  std::vector<int64_t> counts(static_cast<size_t>(blocks.parts()));
  Cost sum;
  for (int64_t c = 0; c < cut.chunks; ++c) {
    for (int i = 0; i < blocks.parts(); ++i) {
      counts[static_cast<size_t>(i)] = cut.CountIn(c, blocks.Count(i));
    }
    sum += cost_of(Blocks::Listed(counts));
  }
  return sum;
}

}  // namespace shardproof::direct

#endif  // SHARDPROOF_COLLECTIVES_DIRECT_COST_H_
