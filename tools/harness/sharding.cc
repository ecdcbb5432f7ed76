#include "tools/harness/sharding.h"

#include <algorithm>
#include <utility>

#include "reference/status.h"

namespace shardproof {
namespace {

int64_t Length(const std::vector<Interval>& ranges) {
  int64_t length = 0;
  for (const Interval& r : ranges) length += r.end - r.begin;
  return length;
}

// The block with `ranges` in `dimension`, whole in the others.
LocalBlock Slice(const Shape& global, int dimension,
                 std::vector<Interval> ranges) {
  LocalBlock block = WholeBlock(global);
  block.ranges[dimension] = std::move(ranges);
  block.shape[dimension] = Length(block.ranges[dimension]);
  return block;
}

// Where rank r's part begins when `size` is cut evenly.
int64_t BalancedBegin(int64_t size, int rank, int ranks) {
  return size / ranks * rank + std::min<int64_t>(rank, size % ranks);
}

Sharding Make(ShardKind kind, std::string name,
              std::function<LocalBlock(const Shape&, int, int)> block) {
  return {.kind = kind,
          .name = std::move(name),
          .rank = -1,
          .block = std::move(block)};
}

LocalBlock Whole(const Shape& global, int /*rank*/, int /*ranks*/) {
  return WholeBlock(global);
}

}  // namespace

LocalBlock MakeBlock(std::vector<std::vector<Interval>> ranges) {
  LocalBlock block{.ranges = std::move(ranges), .shape = {}};
  std::vector<int64_t> dims;
  for (const auto& r : block.ranges) dims.push_back(Length(r));
  block.shape = Shape(dims);
  return block;
}

LocalBlock WholeBlock(const Shape& shape) {
  LocalBlock block{.ranges = {}, .shape = shape};
  for (const int64_t extent : shape) block.ranges.push_back({{0, extent}});
  return block;
}

LocalBlock EmptyBlock(const Shape& shape) {
  return MakeBlock(std::vector<std::vector<Interval>>(
      static_cast<size_t>(std::max(1, shape.rank()))));
}

void ForEachRun(const Shape& global, const LocalBlock& block, int64_t begin,
                int64_t end, const std::function<void(const IndexRun&)>& f) {
  const int rank = global.rank();
  end = std::min(end, block.shape.NumElements());
  if (begin >= end) return;
  if (rank == 0) return f({0, 0, 1});
  // Trailing dimensions that are whole join the run: `inner` elements each.
  int last = rank - 1;
  int64_t inner = 1;
  while (last > 0 && block.ranges[last].size() == 1 &&
         block.ranges[last][0] == Interval{0, global[last]}) {
    inner *= global[last--];
  }
  const int64_t row = block.shape[last] * inner;  // Local elements per row.
  for (int64_t local_row = begin / row; local_row * row < end; ++local_row) {
    // Where the row's dimensions before `last` lie in the global tensor.
    int64_t at = 0, stride = inner * global[last], left = local_row;
    for (int d = last - 1; d >= 0; --d) {
      int64_t index = left % block.shape[d];
      left /= block.shape[d];
      for (const Interval& r : block.ranges[d]) {
        const int64_t length = r.end - r.begin;
        if (index < length) {
          at += (r.begin + index) * stride;
          break;
        }
        index -= length;
      }
      stride *= global[d];
    }
    int64_t local = local_row * row;
    for (const Interval& r : block.ranges[last]) {
      const int64_t length = (r.end - r.begin) * inner;
      const int64_t from = std::max(begin, local);
      const int64_t to = std::min(end, local + length);
      if (from < to) {
        f({from, at + r.begin * inner + (from - local), to - from});
      }
      local += length;
    }
  }
}

Sharding Replicated() {
  return Make(ShardKind::kReplicated, "replicated", Whole);
}

Sharding PerRank() { return Make(ShardKind::kPerRank, "per rank", Whole); }

Sharding Partial() { return Make(ShardKind::kPartial, "partial", Whole); }

Sharding Shard(int dimension) {
  return Make(ShardKind::kSharded, fmt::format("shard({})", dimension),
              [dimension](const Shape& global, int rank, int ranks) {
                const int64_t size = global[dimension];
                return Slice(global, dimension,
                             {{BalancedBegin(size, rank, ranks),
                               BalancedBegin(size, rank + 1, ranks)}});
              });
}

Sharding ShardSizes(int dimension, std::vector<int64_t> sizes) {
  // Before the sizes are moved.
  const std::string name =
      fmt::format("shard({}, sizes {})", dimension, fmt::join(sizes, " "));
  return Make(ShardKind::kSharded, name,
              [dimension, sizes = std::move(sizes)](const Shape& global,
                                                    int rank, int /*ranks*/) {
                int64_t begin = 0;
                for (int r = 0; r < rank; ++r) begin += sizes[r];
                return Slice(global, dimension, {{begin, begin + sizes[rank]}});
              });
}

Sharding PerRankSizes(int dimension, std::vector<int64_t> sizes) {
  const std::string name = fmt::format("per rank, sizes {} of dimension {}",
                                       fmt::join(sizes, " "), dimension);
  return Make(ShardKind::kPerRank, name,
              [dimension, sizes = std::move(sizes)](const Shape& global,
                                                    int rank, int /*ranks*/) {
                return Slice(global, dimension, {{0, sizes[rank]}});
              });
}

Sharding OnRank(int root) {
  Sharding s =
      Make(ShardKind::kOnRank, fmt::format("on rank {}", root),
           [root](const Shape& global, int rank, int /*ranks*/) {
             return rank == root ? WholeBlock(global) : EmptyBlock(global);
           });
  s.rank = root;
  return s;
}

Sharding ShardBy(std::string name,
                 std::function<LocalBlock(const Shape&, int, int)> block) {
  return Make(ShardKind::kSharded, std::move(name), std::move(block));
}

}  // namespace shardproof
