// Which query sees which key (attention/visibility.h), for kernels: the same ranges, from positions alone.
//
//     position(i) = offset + i stride       of queries and of keys
//     query i sees the keys KeysSeen(sight, i), and key j is seen by the queries QueriesSeeing(sight, j)
//
// Neither end of either range decreases, so a tile of rows sees at most from the first of its first row to the last of
// its last row, and everything between the first of its last row and the last of its first row:
//
//     const SeenByTile tile = TileSees(KeysSeen(sight, row), KeysSeen(sight, last_row));
//     for (key = tile.some.first; key < tile.some.last; ...) if (!tile.IsWhole(key, key + n)) { ...mask... }
//
// Not documents: cu_seqlens are one call for each document.
//
// Positions, and positions with the window added, are below 2^31 (WhyNotSight).
#ifndef SHARDPROOF_ATTENTION_KERNELS_CUDA_SIGHT_H_
#define SHARDPROOF_ATTENTION_KERNELS_CUDA_SIGHT_H_

#include <cstdint>
#include <initializer_list>

#include "collectives/backend/cuda/kernels/world.h"

namespace shardproof::cuda {

// stride >= 1, offset and count >= 0.
struct TokenSpan {
  int offset = 0;
  int stride = 1;
  int count = 0;
};

struct Sight {
  TokenSpan queries;
  TokenSpan keys;
  bool causal = false;
  int window = 0;  // Keys behind and with the query itself; 0: all.
};

// [first, last); empty where first >= last.
struct Seen {
  int first = 0;
  int last = 0;
};

// How many tokens of the span are before `position`.
SHARDPROOF_DEVICE int TokensBefore(const TokenSpan& span, int position) {
  const int distance = position - span.offset;
  if (distance <= 0) return 0;
  const int tokens =
      span.stride == 1 ? distance : (distance - 1) / span.stride + 1;
  return tokens < span.count ? tokens : span.count;
}

SHARDPROOF_DEVICE Seen KeysSeen(const Sight& sight, int query) {
  const int position = sight.queries.offset + query * sight.queries.stride;
  const int first = sight.window > 0
                        ? TokensBefore(sight.keys, position - sight.window + 1)
                        : 0;
  const int last =
      sight.causal ? TokensBefore(sight.keys, position + 1) : sight.keys.count;
  return {first, last};
}

SHARDPROOF_DEVICE Seen QueriesSeeing(const Sight& sight, int key) {
  const int position = sight.keys.offset + key * sight.keys.stride;
  const int first = sight.causal ? TokensBefore(sight.queries, position) : 0;
  const int last = sight.window > 0
                       ? TokensBefore(sight.queries, position + sight.window)
                       : sight.queries.count;
  return {first, last};
}

struct SeenByTile {
  Seen some;  // Of what any row sees.
  Seen all;   // What every row sees.

  SHARDPROOF_DEVICE bool IsWhole(int first, int last) const {
    return first >= all.first && last <= all.last;
  }
};
SHARDPROOF_DEVICE SeenByTile TileSees(const Seen& first_row,
                                      const Seen& last_row) {
  return {{first_row.first, last_row.last}, {last_row.first, first_row.last}};
}

// Null where the kernels serve it; else why not.
inline const char* WhyNotSight(const Sight& sight) {
  for (const TokenSpan& span : {sight.queries, sight.keys}) {
    if (span.stride < 1 || span.offset < 0 || span.count < 0) {
      return "a run of tokens with a stride below 1, or a negative offset or "
             "count";
    }
    const int64_t end =
        span.offset + int64_t{span.count} * span.stride + sight.window;
    if (end > INT32_MAX) return "positions beyond 2^31";
  }
  return sight.window < 0 ? "a negative window" : nullptr;
}

}  // namespace shardproof::cuda

#endif  // SHARDPROOF_ATTENTION_KERNELS_CUDA_SIGHT_H_
