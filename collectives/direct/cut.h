// How blocks are cut into the chunks that go through staging memory one after
// another. What staged.cc does and what the costs declare.
#ifndef SHARDPROOF_COLLECTIVES_DIRECT_CUT_H_
#define SHARDPROOF_COLLECTIVES_DIRECT_CUT_H_

#include <algorithm>
#include <cstdint>

#include "collectives/chunks.h"
#include "reference/dtype.h"

namespace shardproof::direct {

// kSmall keeps staging memory within the caches. With kWhole there is one chunk:
// all inputs are copied before any output is written, as operations in place
// need whose outputs do not lie where their inputs did.
enum class ChunkSize { kSmall, kWhole };

// Of one rank's staging memory for the blocks of one chunk, sent or received:
// small enough to stay in a second-level cache, large enough to make a flag
// round cheap.
inline constexpr int64_t kChunkBytes = int64_t{256} << 10;
// Chunks begin at cache lines for every type.
inline constexpr int64_t kChunkGranule = 64;

// Chunk c is the elements [c elements, (c + 1) elements) of every block.
struct Cut {
  int64_t elements;  // Of one block, in one chunk.
  int64_t chunks;    // Until the longest block has gone.
  int64_t places;    // In staging memory, used in turn.

  // For a rank of `parts` blocks on the side that has more; `longest` is the
  // longest block of any rank.
  static constexpr Cut Of(int parts, int64_t longest, DType dtype,
                          ChunkSize chunk_size) {
    const int64_t wanted =
        chunk_size == ChunkSize::kWhole
            ? longest
            : std::min(longest, kChunkBytes / SizeOf(dtype) / parts);
    // Rounded up to whole granules.
    const int64_t granules = (wanted + kChunkGranule - 1) / kChunkGranule;
    const int64_t elements = std::max<int64_t>(granules, 1) * kChunkGranule;
    return {.elements = elements,
            .chunks = (longest + elements - 1) / elements,
            .places = longest > elements ? 2 : 1};
  }
  // How much of a block of `count` elements chunk `c` holds.
  constexpr int64_t CountIn(int64_t c, int64_t count) const {
    return std::clamp(count - c * elements, int64_t{0}, elements);
  }
};

}  // namespace shardproof::direct

#endif  // SHARDPROOF_COLLECTIVES_DIRECT_CUT_H_
