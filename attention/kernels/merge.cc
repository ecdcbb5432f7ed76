#include "attention/kernels/merge.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "collectives/kernels/targets.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "attention/kernels/merge.cc"
#include "hwy/foreach_target.h"
#include "hwy/highway.h"

// After highway.h, once per instruction set.
#include "collectives/kernels/codec-inl.h"

HWY_BEFORE_NAMESPACE();
namespace shardproof::kernels::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

// o += weight (o_b - o).
template <typename T>
void MoveTowards(const T* o_b, int64_t n, T weight, T* o) {
  const hn::ScalableTag<T> d;
  const auto lanes = static_cast<int64_t>(hn::Lanes(d));
  const auto w = hn::Set(d, weight);
  int64_t i = 0;
  for (; i + lanes <= n; i += lanes) {
    const auto x = hn::LoadU(d, o + i);
    const auto y = hn::LoadU(d, o_b + i);
    hn::StoreU(hn::MulAdd(w, hn::Sub(y, x), x), d, o + i);
  }
  for (; i < n; ++i) o[i] = std::fma(weight, o_b[i] - o[i], o[i]);
}

template <typename T>
void MergeRow(const T* o_b, T lse_b, int64_t n, T* o, T& lse) {
  constexpr T kNone = -std::numeric_limits<T>::infinity();
  if (lse_b == kNone) return;
  if (lse == kNone) {
    std::copy_n(o_b, n, o);
    lse = lse_b;
    return;
  }
  const T d = lse_b - lse;
  // Of the smaller part, so that what is close to 1 is not 1 - small.
  const T e = std::exp(-std::abs(d));
  MoveTowards(o_b, n, (d > 0 ? 1 : e) / (1 + e), o);
  lse = std::max(lse, lse_b) + std::log1p(e);
  if (std::isnan(d)) lse = d;
}

template <typename T, typename U>
typename Codec<T>::Lane DotRow(const T* a, const U* b, int64_t n) {
  using Lane = typename Codec<T>::Lane;
  const hn::ScalableTag<Lane> d;
  const auto lanes = static_cast<int64_t>(hn::Lanes(d));
  auto sum = hn::Zero(d);
  int64_t i = 0;
  for (; i + lanes <= n; i += lanes) {
    sum = hn::MulAdd(Codec<T>::Load(d, a + i), Codec<U>::Load(d, b + i), sum);
  }
  Lane all = hn::GetLane(hn::SumOfLanes(d, sum));
  for (; i < n; ++i) {
    all = std::fma(static_cast<Lane>(a[i]), static_cast<Lane>(b[i]), all);
  }
  return all;
}

// Calls f(sequence, head, query) for every row.
template <class Args, class F>
HWY_INLINE void EveryRow(const Args& args, const F& f) {
  for (int64_t s = 0; s < args.sequences; ++s) {
    for (int64_t h = 0; h < args.heads; ++h) {
      for (int64_t i = 0; i < args.queries; ++i) f(s, h, i);
    }
  }
}

template <class Args, class Void>
HWY_INLINE int64_t RowAt(const Args& args, const TokensIn<Void>& t, int64_t s,
                         int64_t h, int64_t i) {
  const int64_t between =
      t.sequence_stride != 0 ? t.sequence_stride : args.queries * t.stride;
  return s * between + i * t.stride + h * args.head_dim;
}

template <class Args, class Void>
HWY_INLINE int64_t NumberAt(const Args& args, const PerQueryIn<Void>& t,
                            int64_t s, int64_t h, int64_t i) {
  return (s * args.heads + h) * (t.stride != 0 ? t.stride : args.queries) + i;
}

template <typename T>
void MergeTyped(const MergeArgs& args) {
  EveryRow(args, [&](int64_t s, int64_t h, int64_t i) {
    MergeRow(
        static_cast<const T*>(args.o_b.data) + RowAt(args, args.o_b, s, h, i),
        static_cast<const T*>(
            args.lse_b.data)[NumberAt(args, args.lse_b, s, h, i)],
        args.head_dim,
        static_cast<T*>(args.o.data) + RowAt(args, args.o, s, h, i),
        static_cast<T*>(args.lse.data)[NumberAt(args, args.lse, s, h, i)]);
  });
}

template <typename T, typename U>
void DeltaTyped(const DeltaArgs& args) {
  using Lane = typename Codec<T>::Lane;
  EveryRow(args, [&](int64_t s, int64_t h, int64_t i) {
    static_cast<Lane*>(args.delta.data)[NumberAt(args, args.delta, s, h, i)] =
        DotRow(
            static_cast<const T*>(args.d_o.data) +
                RowAt(args, args.d_o, s, h, i),
            static_cast<const U*>(args.o.data) + RowAt(args, args.o, s, h, i),
            args.head_dim);
  });
}

void MergeDispatched(const MergeArgs& args) {
  if (args.dtype == DType::kF64) return MergeTyped<double>(args);
  MergeTyped<float>(args);
}

void DeltaDispatched(const DeltaArgs& args) {
  const bool narrow = args.o_type == args.dtype;
  switch (args.dtype) {
    case DType::kF64:
      return DeltaTyped<double, double>(args);
    case DType::kBF16:
      return narrow ? DeltaTyped<BFloat16, BFloat16>(args)
                    : DeltaTyped<BFloat16, float>(args);
    case DType::kF16:
      return narrow ? DeltaTyped<Float16, Float16>(args)
                    : DeltaTyped<Float16, float>(args);
    default:
      return DeltaTyped<float, float>(args);
  }
}

}  // namespace shardproof::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace shardproof {
namespace kernels {

HWY_EXPORT(MergeDispatched);
HWY_EXPORT(DeltaDispatched);

namespace {

template <class Args>
Status CheckSizes(const Args& args) {
  if (std::min({args.sequences, args.queries, args.heads, args.head_dim}) < 0) {
    return InvalidArgument("a size of an attention is negative");
  }
  return OkStatus();
}

Status Merge(const MergeArgs& args) {
  HWY_DYNAMIC_DISPATCH(MergeDispatched)(args);
  return OkStatus();
}

Status Delta(const DeltaArgs& args) {
  HWY_DYNAMIC_DISPATCH(DeltaDispatched)(args);
  return OkStatus();
}

}  // namespace
}  // namespace kernels

Status MergeAttention(const Stream& stream, const MergeArgs& args) {
  SP_RETURN_IF_ERROR(kernels::CheckSizes(args));
  if (args.dtype != DType::kF32 && args.dtype != DType::kF64) {
    return Unsupported("partial attention is merged in f32 or f64, not {}",
                       Name(args.dtype));
  }
  return stream.Run([args] { return kernels::Merge(args); });
}

Status AttentionDelta(const Stream& stream, const DeltaArgs& args) {
  SP_RETURN_IF_ERROR(kernels::CheckSizes(args));
  const DType dtype = args.dtype;
  if (dtype != DType::kF64 && dtype != DType::kF32 && dtype != DType::kBF16 &&
      dtype != DType::kF16) {
    return Unsupported("attention is computed in f64, f32, bf16 or f16, not {}",
                       Name(dtype));
  }
  if (args.o_type != dtype && args.o_type != Accumulator(dtype)) {
    return InvalidArgument("attention of {} gives {} or {}, not {}",
                           Name(dtype), Name(dtype), Name(Accumulator(dtype)),
                           Name(args.o_type));
  }
  return stream.Run([args] { return kernels::Delta(args); });
}

}  // namespace shardproof
#endif  // HWY_ONCE
