// How the threads of all blocks of a rank share a range: whole vectors of 16 bytes, and single elements at its ends.
//
//     elements 0..head-1 | head + v N .. head + v N + N-1 for v in 0..vectors-1 | the rest        N elements in a vector
//
// Thread t of T (counted over all blocks) takes elements and vectors t, t + T, ... of each part. Where the buffers of a
// range are not equally far from a multiple of 16 bytes, there is no place where all have a vector, and everything is
// head.
#ifndef SHARDPROOF_COLLECTIVES_BACKEND_CUDA_KERNELS_WALK_H_
#define SHARDPROOF_COLLECTIVES_BACKEND_CUDA_KERNELS_WALK_H_

#include <cstddef>
#include <cstdint>
#include <cstring>

#include "collectives/backend/cuda/kernels/world.h"

namespace shardproof::cuda {

// 16 bytes that travel as one.
struct alignas(kVectorBytes) Vector {
  uint32_t words[4];
};

template <class T>
inline constexpr int kPerVector = kVectorBytes / static_cast<int>(sizeof(T));

// The elements of a vector.
template <class T>
struct Elements {
  T values[kPerVector<T>];
};
template <class T>
SHARDPROOF_DEVICE Elements<T> Unpack(const Vector& vector) {
  Elements<T> elements;
  memcpy(&elements, &vector, sizeof(vector));
  return elements;
}
template <class T>
SHARDPROOF_DEVICE Vector Pack(const Elements<T>& elements) {
  Vector vector;
  memcpy(&vector, &elements, sizeof(vector));
  return vector;
}

struct Part {
  int64_t begin = 0;
  int64_t count = 0;
};

// Part r of p of `count` elements, cut at whole vectors: as even as that allows.
template <class T>
SHARDPROOF_DEVICE Part PartOf(int64_t count, int p, int r) {
  const int64_t vectors = (count + kPerVector<T> - 1) / kPerVector<T>;
  const int64_t per_rank = (vectors + p - 1) / p * kPerVector<T>;
  const int64_t begin = per_rank * r < count ? per_rank * r : count;
  const int64_t left = count - begin;
  return {begin, per_rank < left ? per_rank : left};
}

// The distances of a set of addresses from a multiple of 16.
class Alignment {
 public:
  SHARDPROOF_DEVICE void Add(const void* address) {
    const auto offset = static_cast<uint32_t>(
        reinterpret_cast<uintptr_t>(address) % kVectorBytes);
    if (known_ && offset != offset_) equal_ = false;
    offset_ = offset;
    known_ = true;
  }
  // The elements before the first vector of `count`.
  template <class T>
  SHARDPROOF_DEVICE int64_t Head(int64_t count) const {
    if (!equal_ || offset_ % sizeof(T) != 0) return count;
    const auto head = static_cast<int64_t>((kVectorBytes - offset_) %
                                           kVectorBytes / sizeof(T));
    return head < count ? head : count;
  }

 private:
  uint32_t offset_ = 0;
  bool known_ = false;
  bool equal_ = true;
};

template <class T, class Context, class OnVector, class OnElement>
SHARDPROOF_DEVICE void Walk(const Context& context, int64_t count, int64_t head,
                            const OnVector& on_vector,
                            const OnElement& on_element) {
  const int64_t first =
      static_cast<int64_t>(context.block()) * context.threads() +
      context.thread();
  const int64_t step =
      static_cast<int64_t>(context.blocks()) * context.threads();
  const int64_t vectors = (count - head) / kPerVector<T>;
  for (int64_t i = first; i < head; i += step) on_element(i);
  for (int64_t v = first; v < vectors; v += step) {
    on_vector(head + v * kPerVector<T>);
  }
  for (int64_t i = head + vectors * kPerVector<T> + first; i < count;
       i += step) {
    on_element(i);
  }
}

}  // namespace shardproof::cuda

#endif  // SHARDPROOF_COLLECTIVES_BACKEND_CUDA_KERNELS_WALK_H_
