// What direct.cc and direct_cost.cc must agree about.
#ifndef SHARDPROOF_COLLECTIVES_BROADCAST_DIRECT_H_
#define SHARDPROOF_COLLECTIVES_BROADCAST_DIRECT_H_

#include <algorithm>
#include <cstdint>

#include "collectives/chunks.h"
#include "collectives/direct/eager.h"
#include "collectives/direct/slices.h"
#include "reference/dtype.h"

namespace shardproof {

// Whether the vector travels with the flag of the root.
constexpr bool BroadcastIsEager(int64_t count, DType dtype) {
  return direct::ByteCount(count, dtype) <= direct::kEagerLimit;
}

// The part that the rank at `distance` after the root copies to all others (the
// root's is the one at distance 0). Where the root must copy the whole to its
// own output too, it has done its share with that and takes a single line. There
// are as many slices then as there are otherwise, so the traffic is the same.
constexpr Chunk BroadcastSlice(int64_t count, DType dtype, int ranks,
                               int distance, bool root_copies) {
  if (!root_copies || ranks == 1) {
    return direct::Slice(count, dtype, ranks, distance);
  }
  const int64_t line = std::min(count, direct::LineElements(dtype));
  if (distance == 0) return {0, line};
  Chunk slice = direct::Slice(count - line, dtype, ranks - 1, distance - 1);
  slice.begin += line;
  return slice;
}

}  // namespace shardproof

#endif  // SHARDPROOF_COLLECTIVES_BROADCAST_DIRECT_H_
