#include "layers/kernels/moe.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>

#include "collectives/kernels/targets.h"
#include "layers/kernels/layer_kernels.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "layers/kernels/moe.cc"
#include "hwy/foreach_target.h"
#include "hwy/highway.h"

// After highway.h, once per instruction set.
#include "collectives/kernels/codec-inl.h"
#include "hwy/contrib/math/math-inl.h"

HWY_BEFORE_NAMESPACE();
namespace shardproof::kernels::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

// Calls body(load, store, i) for every vector of n elements. What does not fill
// one is loaded from and stored to padding, by the same code: `load` pads with
// `pad`.
template <class Body>
HWY_INLINE void ForVectors(int64_t n, size_t lanes, Body body) {
  const auto step = static_cast<int64_t>(lanes);
  int64_t i = 0;
  for (; i + step <= n; i += step) body(i, lanes);
  if (i < n) body(i, static_cast<size_t>(n - i));
}

// The first `count` elements at p, zeros after them.
template <typename T, class D>
HWY_INLINE hn::Vec<D> LoadSome(D d, const T* p, size_t count) {
  if (HWY_LIKELY(count == hn::Lanes(d))) return Codec<T>::Load(d, p);
  HWY_ALIGN std::array<T, hn::MaxLanes(d)> padded{};
  std::memcpy(static_cast<void*>(padded.data()), p, count * sizeof(T));
  return Codec<T>::Load(d, padded.data());
}

template <typename T, class D>
HWY_INLINE void StoreSome(hn::Vec<D> v, D d, T* p, size_t count) {
  if (HWY_LIKELY(count == hn::Lanes(d))) return Codec<T>::Store(v, d, p);
  HWY_ALIGN std::array<T, hn::MaxLanes(d)> padded;
  Codec<T>::Store(v, d, padded.data());
  std::memcpy(static_cast<void*>(p), padded.data(), count * sizeof(T));
}

// --- Routing -----------------------------------------------------------------

// The k largest of z[0, experts) into chosen, largest first. An element passes
// only what is smaller, so of equals the lower index stays in front.
template <typename L>
void TopK(const L* z, int64_t experts, int64_t k, int32_t* chosen) {
  int64_t held = 0;
  for (int64_t e = 0; e < experts; ++e) {
    if (held == k && !(z[e] > z[chosen[k - 1]])) continue;
    int64_t at = held < k ? held++ : k - 1;
    for (; at > 0 && z[e] > z[chosen[at - 1]]; --at) {
      chosen[at] = chosen[at - 1];
    }
    chosen[at] = static_cast<int32_t>(e);
  }
}

template <typename L>
void TopKSoftmaxTyped(const TopKSoftmaxArgs& a) {
  const hn::ScalableTag<L> d;
  const size_t lanes = hn::Lanes(d);
  for (int64_t t = 0; t < a.tokens; ++t) {
    const L* logits = static_cast<const L*>(a.logits) + t * a.experts;
    L* p = static_cast<L*>(a.probabilities) + t * a.experts;
    int32_t* chosen = a.chosen + t * a.k;
    L* weights = static_cast<L*>(a.weights) + t * a.k;
    if (a.noise != nullptr) {
      const L* noise = static_cast<const L*>(a.noise) + t * a.experts;
      ForVectors(a.experts, lanes, [&](int64_t i, size_t n) {
        StoreSome(
            hn::Add(LoadSome(d, logits + i, n), LoadSome(d, noise + i, n)), d,
            p + i, n);
      });
    } else {
      std::copy_n(logits, a.experts, p);
    }
    TopK(p, a.experts, a.k, chosen);
    L top = p[0];
    for (int64_t e = 1; e < a.experts; ++e) top = std::max(top, p[e]);
    auto sums = hn::Zero(d);
    ForVectors(a.experts, lanes, [&](int64_t i, size_t n) {
      const auto z = LoadSome(d, p + i, n);
      // Exp takes a NaN for something else.
      auto e = hn::IfThenElse(hn::IsNaN(z), z,
                              hn::Exp(d, hn::Sub(z, hn::Set(d, top))));
      StoreSome(e, d, p + i, n);
      e = hn::IfThenElseZero(hn::FirstN(d, n), e);
      sums = hn::Add(sums, e);
    });
    const L sum = hn::GetLane(hn::SumOfLanes(d, sums));
    ForVectors(a.experts, lanes, [&](int64_t i, size_t n) {
      StoreSome(hn::Div(LoadSome(d, p + i, n), hn::Set(d, sum)), d, p + i, n);
    });
    static_cast<L*>(a.lse)[t] = top + std::log(sum);
    L of_chosen = 0;
    for (int64_t s = 0; s < a.k; ++s) of_chosen += p[chosen[s]];
    for (int64_t s = 0; s < a.k; ++s) {
      weights[s] = a.renormalise ? p[chosen[s]] / of_chosen : p[chosen[s]];
    }
  }
}

template <typename L>
void TopKSoftmaxGradientTyped(const TopKSoftmaxGradientArgs& a) {
  const hn::ScalableTag<L> d;
  const size_t lanes = hn::Lanes(d);
  const L* da = static_cast<const L*>(a.d_probability);
  for (int64_t t = 0; t < a.tokens; ++t) {
    const L* p = static_cast<const L*>(a.probabilities) + t * a.experts;
    const int32_t* chosen = a.chosen + t * a.k;
    const L* w = static_cast<const L*>(a.weights) + t * a.k;
    const L* dw = static_cast<const L*>(a.d_weights) + t * a.k;
    L* dz = static_cast<L*>(a.d_logits) + t * a.experts;
    L shared = 0, of_chosen = 1;
    if (a.renormalise) {
      of_chosen = 0;
      for (int64_t s = 0; s < a.k; ++s) {
        shared += dw[s] * w[s];
        of_chosen += p[chosen[s]];
      }
    }
    const auto dp = [&](int64_t s) { return (dw[s] - shared) / of_chosen; };
    auto sums = hn::Zero(d);
    ForVectors(a.experts, lanes, [&](int64_t i, size_t n) {
      sums = hn::MulAdd(LoadSome(d, da + i, n), LoadSome(d, p + i, n), sums);
    });
    L c = hn::GetLane(hn::SumOfLanes(d, sums));
    for (int64_t s = 0; s < a.k; ++s) c += dp(s) * p[chosen[s]];
    const L through_lse =
        static_cast<L>(a.d_lse_factor) * static_cast<const L*>(a.lse)[t];
    const auto offset = hn::Set(d, through_lse - c);
    ForVectors(a.experts, lanes, [&](int64_t i, size_t n) {
      StoreSome(hn::Mul(LoadSome(d, p + i, n),
                        hn::Add(LoadSome(d, da + i, n), offset)),
                d, dz + i, n);
    });
    for (int64_t s = 0; s < a.k; ++s) dz[chosen[s]] += dp(s) * p[chosen[s]];
  }
}

template <typename L>
void RoutingSumsTyped(const RoutingSumsArgs& a) {
  std::fill_n(a.sums, 2 * a.experts + 1, 0.0);
  for (int64_t i = 0; i < a.tokens * a.k; ++i) a.sums[a.chosen[i]] += 1;
  const L* p = static_cast<const L*>(a.probabilities);
  double* sums = a.sums + a.experts;
  for (int64_t t = 0; t < a.tokens; ++t, p += a.experts) {
    for (int64_t e = 0; e < a.experts; ++e) {
      sums[e] += static_cast<double>(p[e]);
    }
    const auto lse = static_cast<double>(static_cast<const L*>(a.lse)[t]);
    sums[a.experts] += lse * lse;
  }
}

// --- Rows --------------------------------------------------------------------

template <typename T>
void GatherRowsTyped(const GatherRowsArgs& a) {
  using Lane = typename Codec<T>::Lane;
  const hn::ScalableTag<Lane> d;
  const size_t lanes = hn::Lanes(d);
  const size_t bytes = static_cast<size_t>(a.width) * sizeof(T);
  if (bytes == 0) return;
  for (int64_t r = 0; r < a.rows; ++r) {
    const T* in = static_cast<const T*>(a.source) + a.index[r] * a.width;
    T* out = static_cast<T*>(a.out) + r * a.width;
    if (a.scale == nullptr) {
      std::memcpy(static_cast<void*>(out), in, bytes);
      continue;
    }
    const auto scale = hn::Set(d, static_cast<const Lane*>(a.scale)[r]);
    ForVectors(a.width, lanes, [&](int64_t i, size_t n) {
      StoreSome(hn::Mul(scale, LoadSome(d, in + i, n)), d, out + i, n);
    });
  }
}

template <typename T>
void CombineRowsTyped(const CombineRowsArgs& a) {
  using Lane = typename Codec<T>::Lane;
  const hn::ScalableTag<Lane> d;
  const size_t lanes = hn::Lanes(d);
  const T* source = static_cast<const T*>(a.source);
  for (int64_t t = 0; t < a.tokens; ++t) {
    const int64_t* place = a.place + t * a.k;
    const Lane* weights =
        a.weights ? static_cast<const Lane*>(a.weights) + t * a.k : nullptr;
    const int64_t row = t * a.width;
    ForVectors(a.width, lanes, [&](int64_t i, size_t n) {
      auto sum = hn::Zero(d);
      for (int64_t s = 0; s < a.k; ++s) {
        if (place[s] < 0) continue;
        const auto x = LoadSome(d, source + place[s] * a.width + i, n);
        sum = weights ? hn::MulAdd(hn::Set(d, weights[s]), x, sum)
                      : hn::Add(x, sum);
      }
      if (a.wide != nullptr) {
        sum = hn::Add(
            sum, LoadSome(d, static_cast<const Lane*>(a.wide) + row + i, n));
      }
      if (a.narrow != nullptr) {
        sum = hn::Add(
            sum, LoadSome(d, static_cast<const T*>(a.narrow) + row + i, n));
      }
      StoreSome(sum, d, static_cast<T*>(a.out) + row + i, n);
    });
  }
}

template <typename T>
void RowDotsTyped(const RowDotsArgs& a) {
  using Lane = typename Codec<T>::Lane;
  const hn::ScalableTag<Lane> d;
  const size_t lanes = hn::Lanes(d);
  for (int64_t i = 0; i < a.tokens * a.k; ++i) {
    Lane& dot = static_cast<Lane*>(a.dots)[i];
    dot = 0;
    if (a.place[i] < 0) continue;
    const T* y = static_cast<const T*>(a.y) + i / a.k * a.width;
    const T* x = static_cast<const T*>(a.source) + a.place[i] * a.width;
    auto sum = hn::Zero(d);
    ForVectors(a.width, lanes, [&](int64_t j, size_t n) {
      sum = hn::MulAdd(LoadSome(d, y + j, n), LoadSome(d, x + j, n), sum);
    });
    dot = hn::GetLane(hn::SumOfLanes(d, sum));
  }
}

#define SHARDPROOF_FOR_LANES(Function)                             \
  void Function##Dispatched(DType lane, const Function##Args& a) { \
    return lane == DType::kF64 ? Function##Typed<double>(a)        \
                               : Function##Typed<float>(a);        \
  }
#define SHARDPROOF_FOR_ROWS(Function)                               \
  void Function##Dispatched(DType dtype, const Function##Args& a) { \
    switch (dtype) {                                                \
      case DType::kF64:                                             \
        return Function##Typed<double>(a);                          \
      case DType::kF32:                                             \
        return Function##Typed<float>(a);                           \
      case DType::kBF16:                                            \
        return Function##Typed<BFloat16>(a);                        \
      default:                                                      \
        return Function##Typed<Float16>(a);                         \
    }                                                               \
  }
SHARDPROOF_FOR_LANES(TopKSoftmax)
SHARDPROOF_FOR_LANES(TopKSoftmaxGradient)
SHARDPROOF_FOR_LANES(RoutingSums)
SHARDPROOF_FOR_ROWS(GatherRows)
SHARDPROOF_FOR_ROWS(CombineRows)
SHARDPROOF_FOR_ROWS(RowDots)
#undef SHARDPROOF_FOR_ROWS
#undef SHARDPROOF_FOR_LANES

}  // namespace shardproof::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace shardproof {
namespace kernels {

HWY_EXPORT(TopKSoftmaxDispatched);
HWY_EXPORT(TopKSoftmaxGradientDispatched);
HWY_EXPORT(RoutingSumsDispatched);
HWY_EXPORT(GatherRowsDispatched);
HWY_EXPORT(CombineRowsDispatched);
HWY_EXPORT(RowDotsDispatched);

namespace {

bool IsLane(DType dtype) {
  return dtype == DType::kF32 || dtype == DType::kF64;
}

template <class Args>
Status RunRouting(const Stream& stream, DType lane, const Args& args,
                  void (*run)(DType, const Args&)) {
  if (!IsLane(lane)) {
    return Unsupported("tokens are routed in f32 or f64, not {}", Name(lane));
  }
  if (args.k < 0 || args.k > args.experts) {
    return InvalidArgument("{} of {} experts cannot be chosen", args.k,
                           args.experts);
  }
  return stream.Run([=] {
    run(lane, args);
    return Status();
  });
}

template <class Args>
Status RunRows(const Stream& stream, DType dtype, const Args& args,
               void (*run)(DType, const Args&),
               LayerKernels::Done (LayerKernels::*device)(DType, const Args&)) {
  if (!IsLane(dtype) && dtype != DType::kBF16 && dtype != DType::kF16) {
    return Unsupported("rows of tokens are of f64, f32, bf16 or f16, not {}",
                       Name(dtype));
  }
  return RunKernel(
      stream,
      [=](LayerKernels& kernels) { return (kernels.*device)(dtype, args); },
      [=] {
        run(dtype, args);
        return Status();
      });
}

void CallTopKSoftmax(DType dtype, const TopKSoftmaxArgs& a) {
  HWY_DYNAMIC_DISPATCH(TopKSoftmaxDispatched)(dtype, a);
}
void CallTopKSoftmaxGradient(DType dtype, const TopKSoftmaxGradientArgs& a) {
  HWY_DYNAMIC_DISPATCH(TopKSoftmaxGradientDispatched)(dtype, a);
}
void CallRoutingSums(DType dtype, const RoutingSumsArgs& a) {
  HWY_DYNAMIC_DISPATCH(RoutingSumsDispatched)(dtype, a);
}
void CallGatherRows(DType dtype, const GatherRowsArgs& a) {
  HWY_DYNAMIC_DISPATCH(GatherRowsDispatched)(dtype, a);
}
void CallCombineRows(DType dtype, const CombineRowsArgs& a) {
  HWY_DYNAMIC_DISPATCH(CombineRowsDispatched)(dtype, a);
}
void CallRowDots(DType dtype, const RowDotsArgs& a) {
  HWY_DYNAMIC_DISPATCH(RowDotsDispatched)(dtype, a);
}

}  // namespace
}  // namespace kernels

Status TopKSoftmax(const Stream& stream, DType lane,
                   const TopKSoftmaxArgs& args) {
  return kernels::RunRouting(stream, lane, args, kernels::CallTopKSoftmax);
}

Status TopKSoftmaxGradient(const Stream& stream, DType lane,
                           const TopKSoftmaxGradientArgs& args) {
  return kernels::RunRouting(stream, lane, args,
                             kernels::CallTopKSoftmaxGradient);
}

Status RoutingSums(const Stream& stream, DType lane,
                   const RoutingSumsArgs& args) {
  return kernels::RunRouting(stream, lane, args, kernels::CallRoutingSums);
}

Status GatherRows(const Stream& stream, DType dtype,
                  const GatherRowsArgs& args) {
  return kernels::RunRows(stream, dtype, args, kernels::CallGatherRows,
                          &LayerKernels::GatherRows);
}

Status CombineRows(const Stream& stream, DType dtype,
                   const CombineRowsArgs& args) {
  return kernels::RunRows(stream, dtype, args, kernels::CallCombineRows,
                          &LayerKernels::CombineRows);
}

Status RowDots(const Stream& stream, DType dtype, const RowDotsArgs& args) {
  return kernels::RunRows(stream, dtype, args, kernels::CallRowDots,
                          &LayerKernels::RowDots);
}

}  // namespace shardproof
#endif  // HWY_ONCE
