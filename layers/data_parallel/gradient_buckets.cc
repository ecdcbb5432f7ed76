#include "layers/data_parallel/gradient_buckets.h"

#include <numeric>

namespace shardproof {

GradientBuckets GradientBuckets::Pack(std::span<const int64_t> counts,
                                      std::span<const int> order,
                                      int64_t capacity, int64_t alignment) {
  GradientBuckets packed;
  packed.slots_.resize(counts.size());
  int64_t end = 0;
  for (const int parameter : order) {
    const int64_t count = counts[static_cast<size_t>(parameter)];
    if (packed.buckets_.empty() ||
        packed.buckets_.back().count + count > capacity) {
      end = (end + alignment - 1) / alignment * alignment;
      packed.buckets_.push_back({.begin = end});
    }
    GradientBucket& bucket = packed.buckets_.back();
    packed.slots_[static_cast<size_t>(parameter)] = {
        .bucket = static_cast<int>(packed.buckets_.size()) - 1, .begin = end};
    bucket.count += count;
    ++bucket.parameters;
    end += count;
  }
  packed.extent_ = end;
  return packed;
}

std::vector<int> ReverseOrder(int parameters) {
  std::vector<int> order(static_cast<size_t>(parameters));
  std::iota(order.rbegin(), order.rend(), 0);
  return order;
}

}  // namespace shardproof
