// One loop for every element-wise kernel, for one instruction set.
//
//     Elementwise<BFloat16>(n, [](auto d, auto x, auto y) { return Mul(x, y); },
//                           out, x, y);
//
// Elements are widened to their accumulator type, computed on, and rounded
// once. Operands may be of that type too, in the order of Codec<T>::LoadTwo. What does not fill a vector goes through a padded buffer and the same
// code, so that an element's bits do not depend on where it lies.
#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>

#include "collectives/kernels/targets.h"
#include "hwy/cache_control.h"
#include "hwy/highway.h"

#if defined(SHARDPROOF_LAYERS_KERNELS_ELEMENTWISE_INL_H_) == \
    defined(HWY_TARGET_TOGGLE)
#ifdef SHARDPROOF_LAYERS_KERNELS_ELEMENTWISE_INL_H_
#undef SHARDPROOF_LAYERS_KERNELS_ELEMENTWISE_INL_H_
#else
#define SHARDPROOF_LAYERS_KERNELS_ELEMENTWISE_INL_H_
#endif

#include "collectives/kernels/codec-inl.h"

HWY_BEFORE_NAMESPACE();
namespace shardproof::kernels::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

// How many elements ahead operands are asked for. The prefetcher of the machine
// does not run far enough ahead of loops that compute: without this, gradients of
// a cross entropy in bf16 took twice as long. Asking beyond the end is harmless.
inline constexpr int64_t kAhead = 1024;

template <typename T, class F, class... In>
HWY_INLINE void Elementwise(int64_t n, F f, T* out, const In*... in) {
  using Lane = typename Codec<T>::Lane;
  const hn::ScalableTag<Lane> d;
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(d));
  int64_t i = 0;
  for (; i + 2 * lanes <= n; i += 2 * lanes) {
    const auto load = [&]<typename U>(const U* p) {
      std::array<hn::Vec<decltype(d)>, 2> v;
      Codec<U>::LoadTwo(d, p + i, v[0], v[1]);
      return v;
    };
    const auto both = [&](auto... v) {
      const auto first = f(d, v[0]...);
      Codec<T>::StoreTwo(first, f(d, v[1]...), d, out + i);
    };
    (hwy::Prefetch(in + i + kAhead), ...);
    both(load(in)...);
  }
  for (; i + lanes <= n; i += lanes) {
    Codec<T>::Store(f(d, Codec<In>::Load(d, in + i)...), d, out + i);
  }
  if (i == n) return;
  const auto rest = static_cast<size_t>(n - i);
  const auto padded = [&]<typename U>(const U* p) {
    HWY_ALIGN std::array<U, hn::MaxLanes(d)> tail{};
    std::memcpy(static_cast<void*>(tail.data()), p + i, rest * sizeof(U));
    return Codec<U>::Load(d, tail.data());
  };
  HWY_ALIGN std::array<T, hn::MaxLanes(d)> tail{};
  Codec<T>::Store(f(d, padded(in)...), d, tail.data());
  std::memcpy(static_cast<void*>(out + i), tail.data(), rest * sizeof(T));
}

}  // namespace shardproof::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // include guard
