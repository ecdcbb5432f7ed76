// How a vector is cut among ranks: balanced chunks, equal blocks, or blocks of
// given sizes (the v forms), behind one small value.
//
//     Blocks chunks = Blocks::Balanced(count, p);
//     Send(x + chunks.Begin(r), chunks.Count(r));
#ifndef SHARDPROOF_COLLECTIVES_CHUNKS_H_
#define SHARDPROOF_COLLECTIVES_CHUNKS_H_

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <span>

#include "reference/dtype.h"

namespace shardproof {

// Half-open range [begin, begin + count) of elements.
struct Chunk {
  int64_t begin = 0;
  int64_t count = 0;
  friend bool operator==(const Chunk&, const Chunk&) = default;
};

// Chunk `index` of `parts` over `total` elements: the first total % parts are
// one longer.
constexpr Chunk BalancedChunk(int64_t total, int64_t parts, int64_t index) {
  const int64_t base = total / parts, longer = total % parts;
  return {index * base + std::min(index, longer), base + (index < longer)};
}

// The block of each of `parts` ranks. A view: the spans it was made of must
// outlive it.
class Blocks {
 public:
  // `total` elements in `parts` chunks, as BalancedChunk.
  static Blocks Balanced(int64_t total, int parts) {
    return Blocks(parts, total / parts, total % parts, {}, {});
  }
  // `count` elements for each.
  static Blocks Even(int64_t count, int parts) {
    return Blocks(parts, count, 0, {}, {});
  }
  // counts[i] elements at offsets[i]; without offsets, one after another.
  static Blocks Listed(std::span<const int64_t> counts,
                       std::span<const int64_t> offsets = {}) {
    return Blocks(static_cast<int>(counts.size()), 0, 0, counts, offsets);
  }

  int parts() const { return parts_; }
  // Whether blocks follow one another, so that a run of blocks is one range.
  bool packed() const { return offsets_.empty(); }
  int64_t Count(int i) const {
    return counts_.empty() ? base_ + (i < longer_) : counts_[i];
  }
  // i == parts() is the end of the last block, where packed().
  int64_t Begin(int i) const {
    if (!offsets_.empty()) return offsets_[i];
    if (counts_.empty()) return i * base_ + std::min<int64_t>(i, longer_);
    int64_t begin = 0;
    for (int k = 0; k < i; ++k) begin += counts_[k];
    return begin;
  }
  // Elements in blocks [first, last).
  int64_t Sum(int first, int last) const {
    int64_t sum = 0;
    for (int i = first; i < last; ++i) sum += Count(i);
    return sum;
  }
  int64_t Total() const { return Sum(0, parts_); }
  int64_t Largest() const {
    int64_t largest = 0;
    for (int i = 0; i < parts_; ++i) largest = std::max(largest, Count(i));
    return largest;
  }
  // The length of a buffer that holds every block where it lies.
  int64_t Extent() const {
    int64_t extent = 0;
    for (int i = 0; i < parts_; ++i) {
      extent = std::max(extent, Begin(i) + Count(i));
    }
    return extent;
  }

 private:
  Blocks(int parts, int64_t base, int64_t longer,
         std::span<const int64_t> counts, std::span<const int64_t> offsets)
      : parts_(parts),
        base_(base),
        longer_(longer),
        counts_(counts),
        offsets_(offsets) {}

  int parts_;
  int64_t base_, longer_;
  std::span<const int64_t> counts_, offsets_;
};

// The address of element `index` of an array of `dtype`.
inline const std::byte* At(const void* array, DType dtype, int64_t index) {
  return static_cast<const std::byte*>(array) + index * SizeOf(dtype);
}
inline std::byte* At(void* array, DType dtype, int64_t index) {
  return static_cast<std::byte*>(array) + index * SizeOf(dtype);
}

}  // namespace shardproof

#endif  // SHARDPROOF_COLLECTIVES_CHUNKS_H_
