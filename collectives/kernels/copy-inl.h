// Copies that store around the caches, for one instruction set.
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>

#include "hwy/cache_control.h"
#include "hwy/highway.h"

#if defined(SHARDPROOF_COLLECTIVES_KERNELS_COPY_INL_H_) == \
    defined(HWY_TARGET_TOGGLE)
#ifdef SHARDPROOF_COLLECTIVES_KERNELS_COPY_INL_H_
#undef SHARDPROOF_COLLECTIVES_KERNELS_COPY_INL_H_
#else
#define SHARDPROOF_COLLECTIVES_KERNELS_COPY_INL_H_
#endif

HWY_BEFORE_NAMESPACE();
namespace shardproof::kernels::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

// Bytes from `p` to the next multiple of the vector size.
template <class D>
HWY_INLINE size_t BytesToAlignment(D d, const void* p) {
  const size_t vector_bytes = hn::Lanes(d) * sizeof(hn::TFromD<D>);
  return -reinterpret_cast<uintptr_t>(p) & (vector_bytes - 1);
}

// Four vectors, loaded before the first is stored to any destination that is not
// the source itself.
template <class D>
HWY_INLINE void StreamStep(D d, std::span<void* const> destinations,
                           const uint8_t* source, size_t i) {
  const size_t n = hn::Lanes(d);
  const uint8_t* const from = source + i;
  const auto v0 = hn::LoadU(d, from);
  const auto v1 = hn::LoadU(d, from + n);
  const auto v2 = hn::LoadU(d, from + 2 * n);
  const auto v3 = hn::LoadU(d, from + 3 * n);
  for (void* destination : destinations) {
    uint8_t* const to = static_cast<uint8_t*>(destination) + i;
    if (to == from) continue;
    hn::Stream(v0, d, to);
    hn::Stream(v1, d, to + n);
    hn::Stream(v2, d, to + 2 * n);
    hn::Stream(v3, d, to + 3 * n);
  }
}

inline void CopyPart(std::span<void* const> destinations, const uint8_t* source,
                     size_t begin, size_t end) {
  for (void* destination : destinations) {
    uint8_t* const to = static_cast<uint8_t*>(destination) + begin;
    if (to != source + begin) std::memcpy(to, source + begin, end - begin);
  }
}

// To destinations whose addresses are equal modulo the size of a vector, but for
// those that are the source. Without the fence that must follow before another
// core is told.
HWY_NOINLINE inline void StreamToAll(std::span<void* const> destinations,
                                     const uint8_t* source, size_t bytes,
                                     bool side_by_side) {
  constexpr size_t kPage = 4096, kPages = 4, kApart = kPage / kPages;
  constexpr size_t kLine = 64, kAhead = 512;
  const hn::ScalableTag<uint8_t> d;
  const size_t step = 4 * hn::Lanes(d);
  const size_t head = BytesToAlignment(d, destinations.front());
  if (bytes < head + step) return CopyPart(destinations, source, 0, bytes);
  CopyPart(destinations, source, 0, head);
  size_t i = head;
  if (side_by_side) {
    // At different places of the pages. A load waits for a store that goes to the
    // same place of another page, since processors compare the low 12 bits of
    // addresses first: on Zen 3, two ranks and 64 MiB each, four pages side by
    // side take 4.2 GB/s at one place and 12.9 at four.
    for (; i + kPages * kPage <= bytes; i += kPages * kPage) {
      for (size_t j = 0; j < kPage; j += step) {
        for (size_t page = 0; page < kPages; ++page) {
          StreamStep(d, destinations, source,
                     i + page * kPage + (j + page * kApart) % kPage);
        }
      }
    }
  } else {
    for (; i + kAhead + step <= bytes; i += step) {
      for (size_t j = 0; j < step; j += kLine) {
        hwy::Prefetch(source + i + kAhead + j);
      }
      StreamStep(d, destinations, source, i);
    }
  }
  for (; i + step <= bytes; i += step) StreamStep(d, destinations, source, i);
  CopyPart(destinations, source, i, bytes);
}

}  // namespace shardproof::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // SHARDPROOF_COLLECTIVES_KERNELS_COPY_INL_H_
