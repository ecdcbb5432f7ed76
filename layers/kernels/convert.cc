#include "layers/kernels/convert.h"

#include <algorithm>
#include <cstring>

#include "collectives/kernels/targets.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "layers/kernels/convert.cc"
#include "hwy/foreach_target.h"
#include "hwy/highway.h"

// After highway.h, once per instruction set.
#include "collectives/kernels/codec-inl.h"

HWY_BEFORE_NAMESPACE();
namespace shardproof::kernels::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

// Calls step(d, i) for whole vectors and then for single lanes.
template <class Step>
HWY_INLINE void ForEach(int64_t n, Step step) {
  const hn::ScalableTag<float> d;
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(d));
  int64_t i = 0;
  for (; i + lanes <= n; i += lanes) step(d, i);
  for (; i < n; ++i) step(hn::CappedTag<float, 1>(), i);
}

template <typename T>
void WidenTyped(const T* source, int64_t n, float* destination) {
  ForEach(n, [&](auto d, int64_t i) {
    hn::StoreU(Codec<T>::Load(d, source + i), d, destination + i);
  });
}

template <typename T>
void NarrowTyped(const float* source, const T* addend, int64_t n,
                 T* destination) {
  ForEach(n, [&](auto d, int64_t i) {
    auto v = hn::LoadU(d, source + i);
    if (addend != nullptr) v = hn::Add(v, Codec<T>::Load(d, addend + i));
    Codec<T>::Store(v, d, destination + i);
  });
}

void WidenDispatched(DType from, const void* source, int64_t n,
                     float* destination) {
  if (from == DType::kBF16) {
    WidenTyped(static_cast<const BFloat16*>(source), n, destination);
  } else {
    WidenTyped(static_cast<const Float16*>(source), n, destination);
  }
}

void NarrowDispatched(DType to, const float* source, const void* addend,
                      int64_t n, void* destination) {
  switch (to) {
    case DType::kBF16:
      return NarrowTyped(source, static_cast<const BFloat16*>(addend), n,
                         static_cast<BFloat16*>(destination));
    case DType::kF16:
      return NarrowTyped(source, static_cast<const Float16*>(addend), n,
                         static_cast<Float16*>(destination));
    default:
      return NarrowTyped(source, static_cast<const float*>(addend), n,
                         static_cast<float*>(destination));
  }
}

}  // namespace shardproof::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace shardproof::kernels {

HWY_EXPORT(WidenDispatched);
HWY_EXPORT(NarrowDispatched);

void Widen(DType from, const void* source, int64_t n, float* destination) {
  if (n == 0) return;
  if (from == DType::kF32) {
    std::memcpy(destination, source, static_cast<size_t>(n) * sizeof(float));
    return;
  }
  HWY_DYNAMIC_DISPATCH(WidenDispatched)(from, source, n, destination);
}

void Narrow(DType to, const float* source, const void* addend, int64_t n,
            void* destination) {
  HWY_DYNAMIC_DISPATCH(NarrowDispatched)(to, source, addend, n, destination);
}

}  // namespace shardproof::kernels
#endif  // HWY_ONCE
