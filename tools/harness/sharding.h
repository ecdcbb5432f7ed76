// Which elements of a global tensor each rank holds.
#ifndef SHARDPROOF_TOOLS_HARNESS_SHARDING_H_
#define SHARDPROOF_TOOLS_HARNESS_SHARDING_H_

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "reference/tensor.h"

namespace shardproof {

// Half-open range of indices along one dimension.
struct Interval {
  int64_t begin = 0;
  int64_t end = 0;
  friend bool operator==(const Interval&, const Interval&) = default;
};

// What one rank holds: along each dimension of the global tensor, the indices
// in these intervals, in this order. A contiguous shard has one interval per
// dimension, a zigzag shard two, an empty shard none in some dimension.
struct LocalBlock {
  std::vector<std::vector<Interval>> ranges;  // One entry per dimension.
  Shape shape;  // Local sizes: the lengths added up.
};

// The block with these ranges, its shape added up.
LocalBlock MakeBlock(std::vector<std::vector<Interval>> ranges);
// All of a tensor of this shape.
LocalBlock WholeBlock(const Shape& shape);
// Nothing: every extent is 0.
LocalBlock EmptyBlock(const Shape& shape);

// Elements [local, local + length) of the block are elements [global, global +
// length) of the tensor.
struct IndexRun {
  int64_t local = 0;
  int64_t global = 0;
  int64_t length = 0;
};
// Calls f for the runs of `block`, in local order, that lie within local
// elements [begin, end). Runs are as long as they can be.
void ForEachRun(const Shape& global, const LocalBlock& block, int64_t begin,
                int64_t end, const std::function<void(const IndexRun&)>& f);

enum class ShardKind {
  kReplicated,  // Every rank holds all of it, with the same bits.
  kSharded,     // Every element is held by some rank.
  kPerRank,     // Each rank has a tensor of its own: index (rank, index).
  kOnRank,      // One rank holds all of it, the others nothing.
  kPartial      // Outputs: each rank holds a term; the tensor is their sum.
};

struct Sharding {
  ShardKind kind = ShardKind::kReplicated;
  std::string name;  // For people: "replicated", "shard(0)", "on rank 2".
  int rank = -1;     // kOnRank: which.
  // The block of `rank` of `ranks`. `global` has no leading rank dimension for
  // kPerRank.
  std::function<LocalBlock(const Shape& global, int rank, int ranks)> block;
};

Sharding Replicated();
// Balanced: the first (size mod ranks) ranks hold one more.
Sharding Shard(int dimension);
// Explicit sizes per rank, adding up to the dimension (the v forms, uneven
// shards).
Sharding ShardSizes(int dimension, std::vector<int64_t> sizes);
Sharding PerRank();
// As PerRank, but rank r's tensor has `sizes[r]` in `dimension` (others as
// given).
Sharding PerRankSizes(int dimension, std::vector<int64_t> sizes);
Sharding OnRank(int root);
Sharding Partial();
// Anything else: interleaved QKV, zigzag, a mesh.
Sharding ShardBy(std::string name,
                 std::function<LocalBlock(const Shape&, int, int)> block);

}  // namespace shardproof

#endif  // SHARDPROOF_TOOLS_HARNESS_SHARDING_H_
