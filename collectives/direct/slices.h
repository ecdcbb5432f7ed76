// How ranks share the work on one vector: each takes a slice that begins at a
// cache line (of a vector that begins at one), so that no line is written by
// two ranks.
#ifndef SHARDPROOF_COLLECTIVES_DIRECT_SLICES_H_
#define SHARDPROOF_COLLECTIVES_DIRECT_SLICES_H_

#include <algorithm>
#include <cstddef>
#include <cstdint>

#include "collectives/chunks.h"
#include "reference/dtype.h"

namespace shardproof::direct {

inline constexpr int64_t kLineBytes = 64;

// Elements of `dtype` in a cache line.
constexpr int64_t LineElements(DType dtype) {
  return kLineBytes / SizeOf(dtype);
}

constexpr size_t ByteCount(int64_t count, DType dtype) {
  return static_cast<size_t>(count) * static_cast<size_t>(SizeOf(dtype));
}

// Slice `index` of `parts` of `count` elements; the first are the longest.
constexpr Chunk Slice(int64_t count, DType dtype, int parts, int index) {
  const int64_t line = LineElements(dtype);
  const Chunk lines = BalancedChunk((count + line - 1) / line, parts, index);
  const int64_t begin = std::min(lines.begin * line, count);
  return {begin, std::min(lines.count * line, count - begin)};
}

}  // namespace shardproof::direct

#endif  // SHARDPROOF_COLLECTIVES_DIRECT_SLICES_H_
