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

// Without the fence that must follow before another core is told.
inline void CopyStreaming(uint8_t* HWY_RESTRICT destination,
                          const uint8_t* HWY_RESTRICT source, size_t bytes) {
  const hn::ScalableTag<uint8_t> d;
  const size_t n = hn::Lanes(d);
  const size_t head = BytesToAlignment(d, destination);
  if (bytes < head + 4 * n) {
    std::memcpy(destination, source, bytes);
    return;
  }
  std::memcpy(destination, source, head);
  size_t i = head;
  for (; i + 4 * n <= bytes; i += 4 * n) {
    const auto v0 = hn::LoadU(d, source + i);
    const auto v1 = hn::LoadU(d, source + i + n);
    const auto v2 = hn::LoadU(d, source + i + 2 * n);
    const auto v3 = hn::LoadU(d, source + i + 3 * n);
    hn::Stream(v0, d, destination + i);
    hn::Stream(v1, d, destination + i + n);
    hn::Stream(v2, d, destination + i + 2 * n);
    hn::Stream(v3, d, destination + i + 3 * n);
  }
  std::memcpy(destination + i, source + i, bytes - i);
}

}  // namespace shardproof::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // SHARDPROOF_COLLECTIVES_KERNELS_COPY_INL_H_
