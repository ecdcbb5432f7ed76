#include "attention/kernels/flash_rows.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <numbers>

#include "collectives/kernels/targets.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "attention/kernels/flash_rows.cc"
#include "hwy/foreach_target.h"
#include "hwy/highway.h"

// After highway.h, once per instruction set.
#include "collectives/kernels/codec-inl.h"
#include "hwy/contrib/math/math-inl.h"

HWY_BEFORE_NAMESPACE();
namespace shardproof::kernels::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

// What is multiplied by `scale` where exponents are of base 2 or e.
template <typename Lane>
constexpr double kPerNatural = sizeof(Lane) == 4 ? std::numbers::log2e : 1.0;

// 2^x as 2^n p(r), n the integer below x: minimax polynomials p = 1 + r q(r) over
// [0, 1) of degree 4 (relative error 2.9e-6), where the result is rounded to
// bf16, and 6 (2e-9). A NaN stays one.
template <bool kCoarse, class D, class V = hn::Vec<D>>
HWY_INLINE V Power(D d, V x) {
#if HWY_TARGET == HWY_AVX3
  // What AVX-512 has one instruction for, each.
  const V r{_mm512_reduce_ps(x.raw, 0x09)};  // x - floor(x)
#else
  x = hn::IfThenElse(hn::IsNaN(x), x, hn::Max(hn::Set(d, -126.0f), x));
  const V n = hn::Floor(x);
  const V r = hn::Sub(x, n);
#endif
  V q;
  if constexpr (kCoarse) {
    q = hn::Set(d, 0.01342668372f);
    q = hn::MulAdd(q, r, hn::Set(d, 0.05224247534f));
    q = hn::MulAdd(q, r, hn::Set(d, 0.2412802041f));
    q = hn::MulAdd(q, r, hn::Set(d, 0.693044845f));
  } else {
    q = hn::Set(d, 0.0002161291594f);
    q = hn::MulAdd(q, r, hn::Set(d, 0.001246784617f));
    q = hn::MulAdd(q, r, hn::Set(d, 0.009675451594f));
    q = hn::MulAdd(q, r, hn::Set(d, 0.05548528061f));
    q = hn::MulAdd(q, r, hn::Set(d, 0.2402293056f));
    q = hn::MulAdd(q, r, hn::Set(d, 0.6931470444f));
  }
  const V p = hn::MulAdd(q, r, hn::Set(d, 1.0f));
#if HWY_TARGET == HWY_AVX3
  return V{_mm512_scalef_ps(p.raw, x.raw)};  // p 2^floor(x)
#else
  const hn::RebindToSigned<D> di;
  const auto exponent = hn::Add(hn::ConvertTo(di, n), hn::Set(di, 127));
  return hn::Mul(p, hn::BitCast(d, hn::ShiftLeft<23>(exponent)));
#endif
}

// P is of T, all else of Lane.
template <typename T>
struct Row {
  using Lane = typename Codec<T>::Lane;
  using D = hn::ScalableTag<Lane>;
  using V = hn::Vec<D>;

  static HWY_INLINE V Exponential(D d, V x) {
    if constexpr (sizeof(Lane) == 4) {
      return Power<Codec<T>::kNarrow>(d, x);
    } else {
      // Exp makes a number of a NaN.
      return hn::IfThenElse(hn::IsNaN(x), x, hn::Exp(d, x));
    }
  }

  // Two vectors, rounded to nearest.
  static HWY_INLINE void StorePair(V a, V b, D d, T* p) {
#if HWY_TARGET == HWY_AVX3
    if constexpr (Codec<T>::kNarrow) {
      // Of AVX512-BF16, which a machine has that multiplies bf16, and which this
      // Highway does not know. It has the low half last.
      __m512i both;
      asm("vcvtne2ps2bf16 %2, %1, %0" : "=v"(both) : "v"(b.raw), "v"(a.raw));
      _mm512_storeu_si512(p, both);
      return;
    }
#endif
    Codec<T>::Store(a, d, p);
    Codec<T>::Store(b, d, p + hn::Lanes(d));
  }

  // Calls f(j, mask) for the vectors that hold an end of `seen`, and f2(j) for
  // pairs, f(j) for vectors between them. All others are left alone.
  template <class Masked, class Whole, class Pair>
  static HWY_INLINE void Visit(const IndexRange& seen, const Masked& masked,
                               const Whole& whole, const Pair& pair) {
    const D d;
    const auto lanes = static_cast<int64_t>(hn::Lanes(d));
    const auto edge = [&](int64_t j) {
      const auto before = [&](int64_t n) {
        return hn::FirstN(
            d, static_cast<size_t>(std::clamp<int64_t>(n - j, 0, lanes)));
      };
      masked(j, hn::AndNot(before(seen.first), before(seen.last)));
    };
    int64_t j = seen.first / lanes * lanes;
    if (j < seen.first) {
      edge(j);
      j += lanes;
    }
    for (; j + 2 * lanes <= seen.last; j += 2 * lanes) pair(j);
    for (; j + lanes <= seen.last; j += lanes) whole(j);
    if (j < seen.last) edge(j);
  }

  // Zeros where Visit does not come, which is called for what is not empty.
  static HWY_INLINE void Blank(const IndexRange& seen, int64_t columns,
                               T* row) {
    const auto lanes = static_cast<int64_t>(hn::Lanes(D()));
    const bool empty = seen.size() == 0;
    const int64_t begin = empty ? 0 : seen.first / lanes * lanes;
    const int64_t end = empty ? 0 : (seen.last + lanes - 1) / lanes * lanes;
    std::memset(static_cast<void*>(row), 0,
                static_cast<size_t>(begin) * sizeof(T));
    std::memset(static_cast<void*>(row + end), 0,
                static_cast<size_t>(columns - end) * sizeof(T));
  }

  static Lane Largest(const IndexRange& seen, const Lane* s) {
    const D d;
    const auto lanes = static_cast<int64_t>(hn::Lanes(d));
    const V none = hn::Set(d, -std::numeric_limits<Lane>::infinity());
    V a = none, b = none;
    Visit(
        seen,
        [&](int64_t j, auto mask) {
          a = hn::Max(a, hn::IfThenElse(mask, hn::LoadU(d, s + j), none));
        },
        [&](int64_t j) { a = hn::Max(a, hn::LoadU(d, s + j)); },
        [&](int64_t j) {
          a = hn::Max(a, hn::LoadU(d, s + j));
          b = hn::Max(b, hn::LoadU(d, s + j + lanes));
        });
    return hn::GetLane(hn::MaxOfLanes(d, hn::Max(a, b)));
  }

  // exp(s scale - shift) to p; their sum.
  static Lane Exponentials(const IndexRange& seen, const Lane* s, Lane scale,
                           Lane shift, T* p) {
    const D d;
    const auto lanes = static_cast<int64_t>(hn::Lanes(d));
    const V factor = hn::Set(d, scale), moved = hn::Set(d, shift);
    V a = hn::Zero(d), b = hn::Zero(d);
    const auto at = [&](int64_t j) {
      return Exponential(d, hn::MulSub(hn::LoadU(d, s + j), factor, moved));
    };
    Visit(
        seen,
        [&](int64_t j, auto mask) {
          const V e = hn::IfThenElseZero(mask, at(j));
          a = hn::Add(a, e);
          Codec<T>::Store(e, d, p + j);
        },
        [&](int64_t j) {
          const V e = at(j);
          a = hn::Add(a, e);
          Codec<T>::Store(e, d, p + j);
        },
        [&](int64_t j) {
          const V e = at(j), f = at(j + lanes);
          a = hn::Add(a, e);
          b = hn::Add(b, f);
          StorePair(e, f, d, p + j);
        });
    return hn::GetLane(hn::SumOfLanes(d, hn::Add(a, b)));
  }

  static void Scale(Lane* o, int64_t width, Lane by) {
    const D d;
    const V factor = hn::Set(d, by);
    for (int64_t j = 0; j < width; j += static_cast<int64_t>(hn::Lanes(d))) {
      hn::StoreU(hn::Mul(hn::LoadU(d, o + j), factor), d, o + j);
    }
  }
};

template <typename T>
void ForwardTyped(const ForwardTile& t) {
  using Lane = typename Row<T>::Lane;
  const auto scale = static_cast<Lane>(t.scale * kPerNatural<Lane>);
  for (int64_t i = 0; i < t.rows; ++i) {
    const IndexRange seen = t.seen[i];
    T* const p = static_cast<T*>(t.probabilities) + i * t.columns;
    Row<T>::Blank(seen, t.columns, p);
    if (seen.size() == 0) continue;
    const Lane* const s = static_cast<const Lane*>(t.scores) + i * t.columns;
    Lane& top = static_cast<Lane*>(t.top)[i];
    Lane& sum = static_cast<Lane*>(t.sum)[i];
    const Lane before = top;
    top = std::max(before, Row<T>::Largest(seen, s));
    if (top != before && sum != 0) {
      // The same products as in the exponents, so that their rounding cancels.
      const Lane down = before * scale - top * scale;
      const Lane factor = sizeof(Lane) == 4 ? std::exp2(down) : std::exp(down);
      sum *= factor;
      Row<T>::Scale(static_cast<Lane*>(t.o) + i * t.width, t.width, factor);
    }
    sum += Row<T>::Exponentials(seen, s, scale, top * scale, p);
  }
}

template <typename T>
void BackwardTyped(const BackwardTile& t) {
  using Lane = typename Row<T>::Lane;
  using V = typename Row<T>::V;
  const typename Row<T>::D d;
  const auto lanes = static_cast<int64_t>(hn::Lanes(d));
  const V scale = hn::Set(d, static_cast<Lane>(t.scale * kPerNatural<Lane>));
  const auto* const exponents = static_cast<const Lane*>(t.exponents);
  const auto* const delta = static_cast<const Lane*>(t.delta);
  for (int64_t i = 0; i < t.rows; ++i) {
    const IndexRange seen = t.seen[i];
    const int64_t row = i * t.columns;
    const auto* const s = static_cast<const Lane*>(t.scores) + row;
    const auto* const dp = static_cast<const Lane*>(t.d_probabilities) + row;
    T* const p = static_cast<T*>(t.probabilities) + row;
    T* const ds = static_cast<T*>(t.d_scores) + row;
    Row<T>::Blank(seen, t.columns, p);
    Row<T>::Blank(seen, t.columns, ds);
    if (seen.size() == 0) continue;
    const auto exponential = [&](int64_t j) {
      return Row<T>::Exponential(d, hn::MulSub(hn::LoadU(d, s + j), scale,
                                               hn::LoadU(d, exponents + j)));
    };
    const auto gradient = [&](int64_t j, V e) {
      return hn::Mul(e, hn::Sub(hn::LoadU(d, dp + j), hn::LoadU(d, delta + j)));
    };
    Row<T>::Visit(
        seen,
        [&](int64_t j, auto mask) {
          const V e = hn::IfThenElseZero(mask, exponential(j));
          Codec<T>::Store(e, d, p + j);
          Codec<T>::Store(hn::IfThenElseZero(mask, gradient(j, e)), d, ds + j);
        },
        [&](int64_t j) {
          const V e = exponential(j);
          Codec<T>::Store(e, d, p + j);
          Codec<T>::Store(gradient(j, e), d, ds + j);
        },
        [&](int64_t j) {
          const V e = exponential(j), f = exponential(j + lanes);
          Row<T>::StorePair(e, f, d, p + j);
          Row<T>::StorePair(gradient(j, e), gradient(j + lanes, f), d, ds + j);
        });
  }
}

template <typename Lane>
void AddScaledTyped(const Lane* from, int64_t n, Lane scale, bool overwrite,
                    Lane* to) {
  const hn::ScalableTag<Lane> d;
  const auto lanes = static_cast<int64_t>(hn::Lanes(d));
  const auto factor = hn::Set(d, scale);
  int64_t i = 0;
  for (; i + lanes <= n; i += lanes) {
    const auto x = hn::Mul(hn::LoadU(d, from + i), factor);
    hn::StoreU(overwrite ? x : hn::Add(hn::LoadU(d, to + i), x), d, to + i);
  }
  for (; i < n; ++i) to[i] = (overwrite ? 0 : to[i]) + scale * from[i];
}

void ForwardDispatched(const ForwardTile& t) {
  switch (t.products) {
    case DType::kF64:
      return ForwardTyped<double>(t);
    case DType::kBF16:
      return ForwardTyped<BFloat16>(t);
    default:
      return ForwardTyped<float>(t);
  }
}

void BackwardDispatched(const BackwardTile& t) {
  switch (t.products) {
    case DType::kF64:
      return BackwardTyped<double>(t);
    case DType::kBF16:
      return BackwardTyped<BFloat16>(t);
    default:
      return BackwardTyped<float>(t);
  }
}

void AddScaledDispatched(DType dtype, const void* from, int64_t n, double scale,
                         bool overwrite, void* to) {
  if (dtype == DType::kF64) {
    return AddScaledTyped(static_cast<const double*>(from), n, scale, overwrite,
                          static_cast<double*>(to));
  }
  AddScaledTyped(static_cast<const float*>(from), n, static_cast<float>(scale),
                 overwrite, static_cast<float*>(to));
}

}  // namespace shardproof::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace shardproof::kernels {

HWY_EXPORT(ForwardDispatched);
HWY_EXPORT(BackwardDispatched);
HWY_EXPORT(AddScaledDispatched);

namespace {

// Scores are multiplied by it.
template <typename T>
T ScaleOf(double scale) {
  return static_cast<T>(sizeof(T) == 4 ? scale * std::numbers::log2e : scale);
}

template <typename T>
void FinishTyped(const LastRows& rows) {
  const T scale = ScaleOf<T>(rows.scale);
  for (int64_t i = 0; i < rows.rows; ++i) {
    const T sum = static_cast<const T*>(rows.sum)[i];
    T& lse = static_cast<T*>(rows.lse)[i];
    T* const o = static_cast<T*>(rows.o) + i * rows.width;
    if (sum == 0) {  // O is 0 already.
      lse = -std::numeric_limits<T>::infinity();
      continue;
    }
    const T top = static_cast<const T*>(rows.top)[i] * scale;
    lse = static_cast<T>(
        (sizeof(T) == 4 ? top * std::numbers::ln2 : static_cast<double>(top)) +
        std::log(static_cast<double>(sum)));
    for (int64_t j = 0; j < rows.width; ++j) o[j] /= sum;
  }
}

template <typename T>
void ExponentsTyped(const T* lse, int64_t n, T* exponents) {
  for (int64_t i = 0; i < n; ++i) {
    const T infinity = std::numeric_limits<T>::infinity();
    exponents[i] =
        lse[i] == -infinity
            ? infinity
            : static_cast<T>(sizeof(T) == 4 ? lse[i] * std::numbers::log2e
                                            : lse[i]);
  }
}

template <typename T>
void TransposedTyped(const T* from, int64_t rows, int64_t columns, T* to) {
  constexpr int64_t kBlock = 16;
  for (int64_t i = 0; i < rows; i += kBlock) {
    const int64_t end = std::min(rows, i + kBlock);
    for (int64_t j = 0; j < columns; ++j) {
      for (int64_t k = i; k < end; ++k) {
        to[j * rows + k] = from[k * columns + j];
      }
    }
  }
}

}  // namespace

void ForwardRows(const ForwardTile& tile) {
  HWY_DYNAMIC_DISPATCH(ForwardDispatched)(tile);
}

void BackwardRows(const BackwardTile& tile) {
  HWY_DYNAMIC_DISPATCH(BackwardDispatched)(tile);
}

void AddScaled(DType dtype, const void* from, int64_t n, double scale,
               bool overwrite, void* to) {
  HWY_DYNAMIC_DISPATCH(AddScaledDispatched)
  (dtype, from, n, scale, overwrite, to);
}

void FinishRows(const LastRows& rows) {
  if (rows.products == DType::kF64) return FinishTyped<double>(rows);
  FinishTyped<float>(rows);
}

void ExponentsOf(DType products, const void* lse, int64_t n, void* exponents) {
  if (products == DType::kF64) {
    return ExponentsTyped(static_cast<const double*>(lse), n,
                          static_cast<double*>(exponents));
  }
  ExponentsTyped(static_cast<const float*>(lse), n,
                 static_cast<float*>(exponents));
}

void Transposed(DType dtype, const void* from, int64_t rows, int64_t columns,
                void* to) {
  Visit(dtype, [&]<typename T>(TypeTag<T>) {
    TransposedTyped(static_cast<const T*>(from), rows, columns,
                    static_cast<T*>(to));
  });
}

}  // namespace shardproof::kernels
#endif  // HWY_ONCE
