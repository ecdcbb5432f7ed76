// Where the gradients of all parameters lie in one buffer, cut into buckets that
// are reduced one at a time.
//
// Parameters follow one another in the order in which backward writes their
// gradients, so that a bucket is one range of the buffer and can be sent as it
// is. A bucket takes parameters as long as they fit; one that is larger than a
// bucket has a bucket of its own. Only between buckets is there padding, so
// what is sent is the gradients and nothing else.
//
//     GradientBuckets b = GradientBuckets::Pack({100, 10, 50}, {2, 1, 0}, 64, 4);
//     b.buckets()     // {0, 60} of parameters 2, 1; {64, 100} of parameter 0
//     b.slot(1)       // {bucket 0, begin 50}
//
// Source: Li et al., PyTorch Distributed, VLDB 2020, section 3.2.3 (buckets, in
// the reverse order of use).
#ifndef SHARDPROOF_LAYERS_DATA_PARALLEL_GRADIENT_BUCKETS_H_
#define SHARDPROOF_LAYERS_DATA_PARALLEL_GRADIENT_BUCKETS_H_

#include <cstdint>
#include <span>
#include <vector>

namespace shardproof {

// Elements [begin, begin + count) of the buffer.
struct GradientBucket {
  int64_t begin = 0;
  int64_t count = 0;
  int parameters = 0;
  friend bool operator==(const GradientBucket&,
                         const GradientBucket&) = default;
};

struct GradientSlot {
  int bucket = 0;
  int64_t begin = 0;
  friend bool operator==(const GradientSlot&, const GradientSlot&) = default;
};

class GradientBuckets {
 public:
  GradientBuckets() = default;
  // counts[i] elements for parameter i; `order` names every parameter once. A
  // bucket holds at most `capacity` elements, and begins at a multiple of
  // `alignment` elements.
  static GradientBuckets Pack(std::span<const int64_t> counts,
                              std::span<const int> order, int64_t capacity,
                              int64_t alignment);

  const std::vector<GradientBucket>& buckets() const { return buckets_; }
  const GradientSlot& slot(int parameter) const {
    return slots_[static_cast<size_t>(parameter)];
  }
  // Elements of the whole buffer, padding and all.
  int64_t extent() const { return extent_; }

 private:
  std::vector<GradientBucket> buckets_;
  std::vector<GradientSlot> slots_;
  int64_t extent_ = 0;
};

// n - 1, ..., 1, 0: the order in which backward writes parameters that are
// numbered in the order of their use.
std::vector<int> ReverseOrder(int parameters);

}  // namespace shardproof

#endif  // SHARDPROOF_LAYERS_DATA_PARALLEL_GRADIENT_BUCKETS_H_
