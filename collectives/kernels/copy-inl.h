// Copies that store around the caches, for one instruction set.
#include <cstddef>
#include <cstdint>
#include <cstring>

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

// Four vectors, loaded before the first is stored.
template <class D>
HWY_INLINE void StreamStep(D d, uint8_t* HWY_RESTRICT destination,
                           const uint8_t* HWY_RESTRICT source) {
  const size_t n = hn::Lanes(d);
  const auto v0 = hn::LoadU(d, source);
  const auto v1 = hn::LoadU(d, source + n);
  const auto v2 = hn::LoadU(d, source + 2 * n);
  const auto v3 = hn::LoadU(d, source + 3 * n);
  hn::Stream(v0, d, destination);
  hn::Stream(v1, d, destination + n);
  hn::Stream(v2, d, destination + 2 * n);
  hn::Stream(v3, d, destination + 3 * n);
}

// Without the fence that must follow before another core is told.
//
// Long copies walk through several pages side by side. The hardware prefetches
// for each page of 4 KiB apart, and from one it fetches too little at a time to
// cover the latency of memory. Two ranks on one AVX-512 machine, 256 MiB each:
// 9.0 GB/s with one page at a time, 10.6 with two, 11.5 with four, 11.7 with
// eight.
//
// They are at different places of their pages. A load waits for a store that
// goes to the same place of another page, since processors compare the low 12
// bits of addresses first: on Zen 3, two ranks and 64 MiB each, four pages side
// by side take 4.2 GB/s at one place and 12.9 at four.
HWY_NOINLINE inline void CopyStreaming(uint8_t* HWY_RESTRICT destination,
                                       const uint8_t* HWY_RESTRICT source,
                                       size_t bytes) {
  constexpr size_t kPage = 4096, kPages = 4, kApart = kPage / kPages;
  const hn::ScalableTag<uint8_t> d;
  const size_t step = 4 * hn::Lanes(d);
  const size_t head = BytesToAlignment(d, destination);
  if (bytes < head + step) {
    std::memcpy(destination, source, bytes);
    return;
  }
  std::memcpy(destination, source, head);
  size_t i = head;
  for (; i + kPages * kPage <= bytes; i += kPages * kPage) {
    for (size_t j = 0; j < kPage; j += step) {
      for (size_t page = 0; page < kPages; ++page) {
        const size_t k = i + page * kPage + (j + page * kApart) % kPage;
        StreamStep(d, destination + k, source + k);
      }
    }
  }
  for (; i + step <= bytes; i += step) {
    StreamStep(d, destination + i, source + i);
  }
  std::memcpy(destination + i, source + i, bytes - i);
}

}  // namespace shardproof::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // SHARDPROOF_COLLECTIVES_KERNELS_COPY_INL_H_
