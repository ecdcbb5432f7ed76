#include "layers/kernels/softmax.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <limits>

#include "collectives/kernels/targets.h"
#include "layers/kernels/layer_kernels.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "layers/kernels/softmax.cc"
#include "hwy/cache_control.h"
#include "hwy/foreach_target.h"
#include "hwy/highway.h"

// After highway.h, once per instruction set.
#include "collectives/kernels/codec-inl.h"
#include "layers/kernels/exp-inl.h"

HWY_BEFORE_NAMESPACE();
namespace shardproof::kernels::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

// How many columns a row sees.
HWY_INLINE int64_t Seen(const SoftmaxShape& shape, int64_t row) {
  if (!shape.causal) return shape.columns;
  return std::clamp<int64_t>(row + shape.diagonal + 1, 0, shape.columns);
}

// `n` elements at p as a vector, `beyond` in the lanes that they leave. n may be
// more than there are lanes.
template <typename T, class D>
HWY_INLINE hn::Vec<D> LoadSome(D d, const T* p, int64_t n,
                               hn::TFromD<D> beyond) {
  const auto lanes = static_cast<int64_t>(hn::Lanes(d));
  if (n >= lanes) return Codec<T>::Load(d, p);
  HWY_ALIGN std::array<T, hn::MaxLanes(d)> padded{};
  std::memcpy(static_cast<void*>(padded.data()), p,
              static_cast<size_t>(n) * sizeof(T));
  return hn::IfThenElse(hn::FirstN(d, static_cast<size_t>(n)),
                        Codec<T>::Load(d, padded.data()), hn::Set(d, beyond));
}

template <typename T, class D>
HWY_INLINE void StoreSome(hn::Vec<D> v, D d, T* p, int64_t n) {
  const auto lanes = static_cast<int64_t>(hn::Lanes(d));
  if (n >= lanes) return Codec<T>::Store(v, d, p);
  HWY_ALIGN std::array<T, hn::MaxLanes(d)> padded{};
  Codec<T>::Store(v, d, padded.data());
  std::memcpy(static_cast<void*>(p), padded.data(),
              static_cast<size_t>(n) * sizeof(T));
}

// Zeros from column `begin` on.
template <typename T>
HWY_INLINE void Mask(T* row, int64_t begin, int64_t columns) {
  if (begin == columns) return;
  std::memset(static_cast<void*>(row + begin), 0,
              static_cast<size_t>(columns - begin) * sizeof(T));
}

// Of scale times n scores.
template <typename Lane>
HWY_INLINE Lane Largest(const Lane* s, int64_t n, Lane scale) {
  const hn::ScalableTag<Lane> d;
  const auto lanes = static_cast<int64_t>(hn::Lanes(d));
  const auto factor = hn::Set(d, scale);
  auto a = hn::Set(d, -std::numeric_limits<Lane>::infinity()), b = a;
  int64_t j = 0;
  for (; j + 2 * lanes <= n; j += 2 * lanes) {
    a = hn::Max(a, hn::Mul(hn::LoadU(d, s + j), factor));
    b = hn::Max(b, hn::Mul(hn::LoadU(d, s + j + lanes), factor));
  }
  // Lanes beyond the end repeat the row's first score, which changes no
  // maximum; an infinity would become a NaN if the scale is 0.
  for (; j < n; j += lanes) {
    a = hn::Max(a, hn::Mul(LoadSome<Lane>(d, s + j, n - j, s[0]), factor));
  }
  return hn::GetLane(hn::MaxOfLanes(d, hn::Max(a, b)));
}

// e[j] = exp(scale s[j] - largest), which may be s, and their sum. The next row
// comes from memory while units are busy with this one.
template <typename Lane>
HWY_INLINE Lane Exponentials(const Lane* s, int64_t n, Lane scale, Lane largest,
                             const Lane* next, Lane* e) {
  const hn::ScalableTag<Lane> d;
  const auto lanes = static_cast<int64_t>(hn::Lanes(d));
  using V = hn::Vec<decltype(d)>;
  constexpr int64_t kVectors = 4;
  constexpr int64_t kLine = 64 / static_cast<int64_t>(sizeof(Lane));
  std::array<V, kVectors> sums;
  sums.fill(hn::Zero(d));
  const auto below = [&](V x) {
    // Not fused: the largest must be exactly 0 below itself, and no other above.
    return hn::Sub(hn::Mul(x, hn::Set(d, scale)), hn::Set(d, largest));
  };
  int64_t j = 0;
  for (; j + kVectors * lanes <= n; j += kVectors * lanes) {
    for (int64_t i = 0; i < kVectors * lanes; i += kLine) {
      hwy::Prefetch(next + j + i);
    }
    std::array<V, kVectors> x;
    const Lane* from = s + j;
    for (V& v : x) v = below(hn::LoadU(d, from)), from += lanes;
    ExpOfNegative(d, x);
    Lane* to = e + j;
    for (const V& v : x) hn::StoreU(v, d, to), to += lanes;
    for (size_t v = 0; v < kVectors; ++v) sums[v] = hn::Add(sums[v], x[v]);
  }
  for (; j < n; j += lanes) {
    auto v = ExpOfNegative(d, below(LoadSome<Lane>(d, s + j, n - j, s[0])));
    StoreSome<Lane>(v, d, e + j, n - j);
    if (n - j < lanes) {
      v = hn::IfThenElseZero(hn::FirstN(d, static_cast<size_t>(n - j)), v);
    }
    sums[0] = hn::Add(sums[0], v);
  }
  return hn::GetLane(hn::SumOfLanes(
      d, hn::Add(hn::Add(sums[0], sums[1]), hn::Add(sums[2], sums[3]))));
}

// Three passes over a row that the first has brought into the cache.
template <typename T>
void SoftmaxRow(const SoftmaxShape& shape, int64_t n,
                typename Codec<T>::Lane* s, T* p) {
  using Lane = typename Codec<T>::Lane;
  const hn::ScalableTag<Lane> d;
  const auto lanes = static_cast<int64_t>(hn::Lanes(d));
  // Exponentials that took the place of the scores would be written to memory
  // for nobody.
  constexpr int64_t kKept = 4096;
  HWY_ALIGN std::array<Lane, kKept> kept;
  Lane* const e = Codec<T>::kNarrow && n <= kKept ? kept.data() : s;
  const auto scale = static_cast<Lane>(shape.scale);
  const Lane largest = Largest(s, n, scale);
  // A product instead of a division: one rounding more, a twelfth of the time.
  const Lane sum = Exponentials(s, n, scale, largest, s + shape.columns, e);
  const auto share = hn::Set(d, 1 / sum);
  int64_t j = 0;
  for (; j + 2 * lanes <= n; j += 2 * lanes) {
    const auto a = hn::Mul(hn::LoadU(d, e + j), share);
    const auto b = hn::Mul(hn::LoadU(d, e + j + lanes), share);
    Codec<T>::StoreNext(a, b, d, p + j);
  }
  for (; j < n; j += lanes) {
    const auto v = hn::Mul(LoadSome<Lane>(d, e + j, n - j, 0), share);
    StoreSome<T>(v, d, p + j, n - j);
  }
}

template <typename T>
void SoftmaxTyped(const SoftmaxShape& shape, void* s, void* p) {
  using Lane = typename Codec<T>::Lane;
  for (int64_t i = 0; i < shape.rows; ++i) {
    const int64_t n = Seen(shape, i);
    T* row = static_cast<T*>(p) + i * shape.columns;
    if (n > 0) {
      SoftmaxRow<T>(shape, n, static_cast<Lane*>(s) + i * shape.columns, row);
    }
    Mask(row, n, shape.columns);
  }
}

template <typename T>
void SoftmaxBackwardTyped(const SoftmaxShape& shape, const void* p,
                          const void* dp, void* ds) {
  using Lane = typename Codec<T>::Lane;
  const hn::ScalableTag<Lane> d;
  const auto lanes = static_cast<int64_t>(hn::Lanes(d));
  const auto scale = hn::Set(d, static_cast<Lane>(shape.scale));
  for (int64_t i = 0; i < shape.rows; ++i) {
    const int64_t n = Seen(shape, i);
    const T* prow = static_cast<const T*>(p) + i * shape.columns;
    const Lane* dprow = static_cast<const Lane*>(dp) + i * shape.columns;
    Lane* out = static_cast<Lane*>(ds) + i * shape.columns;
    auto sums = hn::Zero(d);
    for (int64_t j = 0; j < n; j += lanes) {
      sums = hn::MulAdd(LoadSome<T>(d, prow + j, n - j, 0),
                        LoadSome<Lane>(d, dprow + j, n - j, 0), sums);
    }
    const auto mean = hn::SumOfLanes(d, sums);
    for (int64_t j = 0; j < n; j += lanes) {
      const auto pj = LoadSome<T>(d, prow + j, n - j, 0);
      const auto dpj = LoadSome<Lane>(d, dprow + j, n - j, 0);
      StoreSome<Lane>(hn::Mul(hn::Mul(pj, hn::Sub(dpj, mean)), scale), d,
                      out + j, n - j);
    }
    Mask(out, n, shape.columns);
  }
}

void SoftmaxDispatched(const SoftmaxShape& shape, void* s, void* p) {
  switch (shape.dtype) {
    case DType::kF64:
      return SoftmaxTyped<double>(shape, s, p);
    case DType::kF32:
      return SoftmaxTyped<float>(shape, s, p);
    case DType::kBF16:
      return SoftmaxTyped<BFloat16>(shape, s, p);
    default:
      return SoftmaxTyped<Float16>(shape, s, p);
  }
}

void SoftmaxBackwardDispatched(const SoftmaxShape& shape, const void* p,
                               const void* dp, void* ds) {
  switch (shape.dtype) {
    case DType::kF64:
      return SoftmaxBackwardTyped<double>(shape, p, dp, ds);
    case DType::kF32:
      return SoftmaxBackwardTyped<float>(shape, p, dp, ds);
    case DType::kBF16:
      return SoftmaxBackwardTyped<BFloat16>(shape, p, dp, ds);
    default:
      return SoftmaxBackwardTyped<Float16>(shape, p, dp, ds);
  }
}

}  // namespace shardproof::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace shardproof {
namespace kernels {

HWY_EXPORT(SoftmaxDispatched);
HWY_EXPORT(SoftmaxBackwardDispatched);

namespace {

Status Check(const SoftmaxShape& shape) {
  const DType dtype = shape.dtype;
  if (dtype != DType::kF64 && dtype != DType::kF32 && dtype != DType::kBF16 &&
      dtype != DType::kF16) {
    return Unsupported("probabilities are of f64, f32, bf16 or f16, not {}",
                       Name(dtype));
  }
  return OkStatus();
}

void Forward(const SoftmaxShape& shape, void* s, void* p) {
  HWY_DYNAMIC_DISPATCH(SoftmaxDispatched)(shape, s, p);
}

void Backward(const SoftmaxShape& shape, const void* p, const void* dp,
              void* ds) {
  HWY_DYNAMIC_DISPATCH(SoftmaxBackwardDispatched)(shape, p, dp, ds);
}

}  // namespace
}  // namespace kernels

Status Softmax(const Stream& stream, const SoftmaxShape& shape, void* s,
               void* p) {
  SP_RETURN_IF_ERROR(kernels::Check(shape));
  return RunKernel(
      stream, [=](LayerKernels& device) { return device.Softmax(shape, s, p); },
      [=] {
        kernels::Forward(shape, s, p);
        return Status();
      });
}

Status SoftmaxBackward(const Stream& stream, const SoftmaxShape& shape,
                       const void* p, const void* dp, void* ds) {
  SP_RETURN_IF_ERROR(kernels::Check(shape));
  return RunKernel(
      stream,
      [=](LayerKernels& device) {
        return device.SoftmaxBackward(shape, p, dp, ds);
      },
      [=] {
        kernels::Backward(shape, p, dp, ds);
        return Status();
      });
}

}  // namespace shardproof
#endif  // HWY_ONCE
