#include "layers/kernels/norm.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>

#include "collectives/kernels/targets.h"
#include "layers/kernels/convert.h"
#include "layers/kernels/layer_kernels.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "layers/kernels/norm.cc"
#include "hwy/cache_control.h"
#include "hwy/foreach_target.h"
#include "hwy/highway.h"

// After highway.h, once per instruction set.
#include "layers/kernels/elementwise-inl.h"

HWY_BEFORE_NAMESPACE();
namespace shardproof::kernels::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

// Rows whose sums are in registers together, in the backward pass.
constexpr int kTile = 4;

template <typename Lane, class V>
HWY_INLINE Lane Total(V v) {
  const hn::ScalableTag<Lane> d;
  return hn::GetLane(hn::SumOfLanes(d, v));
}

// Two vectors of a row, in the order of Codec<T>::LoadTwo.
template <typename Lane>
struct Two {
  using V = hn::Vec<hn::ScalableTag<Lane>>;
  V a, b;
};

template <typename T, class D, class V = hn::Vec<D>>
HWY_INLINE Two<hn::TFromD<D>> LoadTwo(D d, const T* p) {
  Two<hn::TFromD<D>> v;
  Codec<T>::LoadTwo(d, p, v.a, v.b);
  return v;
}

// Elements in 16 lines of a cache.
template <typename T>
inline constexpr int64_t kPiece = 16 * 64 / static_cast<int64_t>(sizeof(T));

template <typename T>
HWY_INLINE void Prefetch(const T* p, int64_t n) {
  constexpr int64_t kLine = 64 / static_cast<int64_t>(sizeof(T));
  for (int64_t i = 0; i < n; i += kLine) hwy::Prefetch(p + i);
}

// The sum of f(d, x...) over the elements x of `in`: four sums side by side,
// since one would wait for its last addition.
template <typename T, class F, class... In>
HWY_INLINE typename Codec<T>::Lane SumOver(int64_t n, F f, const In*... in) {
  using Lane = typename Codec<T>::Lane;
  const hn::ScalableTag<Lane> d;
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(d));
  auto s0 = hn::Zero(d), s1 = s0, s2 = s0, s3 = s0;
  const auto add = [&](auto& a, auto& b, auto... v) {
    a = f(d, a, v.a...);
    b = f(d, b, v.b...);
  };
  int64_t i = 0;
  for (; i + 4 * lanes <= n; i += 4 * lanes) {
    add(s0, s1, LoadTwo(d, in + i)...);
    add(s2, s3, LoadTwo(d, in + i + 2 * lanes)...);
  }
  for (; i + lanes <= n; i += lanes) {
    s0 = f(d, s0, Codec<T>::Load(d, in + i)...);
  }
  Lane sum = Total<Lane>(hn::Add(hn::Add(s0, s1), hn::Add(s2, s3)));
  const hn::CappedTag<Lane, 1> one;
  for (; i < n; ++i) {
    sum =
        hn::GetLane(f(one, hn::Set(one, sum), Codec<T>::Load(one, in + i)...));
  }
  return sum;
}

template <typename T, bool kCentred>
void ForwardRow(const NormRows& r, const T* x, const T* residual,
                const T* weight, const T* bias, bool last, T* z, T* y,
                typename Codec<T>::Lane* mean,
                typename Codec<T>::Lane* inverse) {
  using Lane = typename Codec<T>::Lane;
  const int64_t n = r.columns;
  const T* const next = x + n;
  if (residual != nullptr) {
    Elementwise<T>(
        n, [](auto, auto v, auto w) { return hn::Add(v, w); }, z, x, residual);
    x = z;
  }
  const auto count = static_cast<Lane>(n);
  Lane m = 0;
  if constexpr (kCentred) {
    const auto add = [](auto, auto sum, auto v) { return hn::Add(sum, v); };
    m = SumOver<T>(n, add, x) / count;
    *mean = m;
  }
  const auto deviation = [m](auto d, auto v) {
    if constexpr (!kCentred) return v;
    return hn::Sub(v, hn::Set(d, m));
  };
  const auto add_square = [&](auto d, auto sum, auto v) {
    const auto e = deviation(d, v);
    return hn::MulAdd(e, e, sum);
  };
  const Lane squares = SumOver<T>(n, add_square, x);
  const Lane s = 1 / std::sqrt(squares / count + static_cast<Lane>(r.epsilon));
  *inverse = s;
  const auto normal = [&](auto d, auto v) {
    return hn::Mul(deviation(d, v), hn::Set(d, s));
  };
  // The next row comes from memory while this one, in the first cache, keeps
  // the units busy that compute; with a residual there are too many rows for
  // that cache. Rejected: weights and deviations widened once into scratch, which
  // leaves less of the cache and took a fifth longer.
  for (int64_t i = 0; i < n; i += kPiece<T>) {
    const int64_t size = std::min(kPiece<T>, n - i);
    if (!last && residual == nullptr) Prefetch(next + i, size);
    if (bias == nullptr) {
      Elementwise<T>(
          size,
          [&](auto d, auto v, auto w) { return hn::Mul(normal(d, v), w); },
          y + i, x + i, weight + i);
    } else {
      Elementwise<T>(
          size,
          [&](auto d, auto v, auto w, auto b) {
            return hn::MulAdd(normal(d, v), w, b);
          },
          y + i, x + i, weight + i, bias + i);
    }
  }
}

template <typename T, bool kCentred>
void Forward(const NormRows& r, const NormalizeArgs& a) {
  using Lane = typename Codec<T>::Lane;
  const auto* x = static_cast<const T*>(a.x);
  const auto* residual = static_cast<const T*>(a.residual);
  auto* z = static_cast<T*>(a.z);
  auto* y = static_cast<T*>(a.y);
  auto* mean = static_cast<Lane*>(a.mean);
  auto* inverse = static_cast<Lane*>(a.inverse);
  for (int64_t i = 0; i < r.rows; ++i) {
    const int64_t at = i * r.columns;
    ForwardRow<T, kCentred>(r, x + at, residual ? residual + at : nullptr,
                            static_cast<const T*>(a.weight),
                            static_cast<const T*>(a.bias), i + 1 == r.rows,
                            z ? z + at : nullptr, y + at,
                            kCentred ? mean + i : nullptr, inverse + i);
  }
}

// The backward pass of up to kTile rows: sums of all of them in one pass over
// the columns, which also adds them to dweight and dbias; then dx, row by row.
// While rows are added up, dweight and dbias are in the order of LoadTwo.
template <typename T, bool kCentred>
class BackwardTile {
  using Lane = typename Codec<T>::Lane;
  using D = hn::ScalableTag<Lane>;
  using One = hn::CappedTag<Lane, 1>;

 public:
  BackwardTile(const NormRows& r, const NormalizeBackwardArgs& a, int64_t first)
      : n_(r.columns),
        z_(static_cast<const T*>(a.z) + first * n_),
        dy_(static_cast<const T*>(a.dy) + first * n_),
        weight_(static_cast<const T*>(a.weight)),
        mean_(kCentred ? static_cast<const Lane*>(a.mean) + first : nullptr),
        inverse_(static_cast<const Lane*>(a.inverse) + first),
        dz_(a.dz ? static_cast<const T*>(a.dz) + first * n_ : nullptr),
        dx_(static_cast<T*>(a.dx) + first * n_),
        dweight_(static_cast<Lane*>(a.dweight)),
        dbias_(static_cast<Lane*>(a.dbias)) {}

  // `left`: rows of the matrix from the first of this tile on.
  void Run(int64_t left) {
    const int64_t rows = std::min<int64_t>(kTile, left);
    if (rows == kTile) {
      Sum<kTile>(0);
    } else {
      for (int64_t t = 0; t < rows; ++t) Sum<1>(t);
    }
    for (int64_t t = 0; t < rows; ++t) InputGradient(t, t + kTile >= left);
  }

 private:
  // What a row adds up, by lanes.
  template <class V>
  struct Sums {
    V p, q;
  };
  // Weights at some columns, and what is added to their gradients.
  template <class V>
  struct Columns {
    V w, dw, db;
  };

  template <class Tag, class V = hn::Vec<Tag>>
  HWY_INLINE V Deviation(Tag d, int64_t t, V z) const {
    if constexpr (kCentred) return hn::Sub(z, hn::Set(d, mean_[t]));
    return z;
  }

  // Row t at some columns.
  template <class Tag, class V = hn::Vec<Tag>>
  HWY_INLINE void Add(Tag d, int64_t t, V z, V dy, Columns<V>& c,
                      Sums<V>& s) const {
    const auto normal = hn::Mul(Deviation(d, t, z), hn::Set(d, inverse_[t]));
    const auto g = hn::Mul(dy, c.w);
    c.dw = hn::MulAdd(dy, normal, c.dw);
    c.db = hn::Add(c.db, dy);
    if constexpr (kCentred) s.p = hn::Add(s.p, g);
    s.q = hn::MulAdd(g, normal, s.q);
  }

  template <class Tag, class V = hn::Vec<Tag>>
  HWY_INLINE Columns<V> Gradients(Tag d, int64_t i, V w) const {
    return {w, hn::LoadU(d, dweight_ + i),
            dbias_ != nullptr ? hn::LoadU(d, dbias_ + i) : hn::Zero(d)};
  }
  template <class Tag, class V = hn::Vec<Tag>>
  HWY_INLINE void Put(Tag d, int64_t i, const Columns<V>& c) const {
    hn::StoreU(c.dw, d, dweight_ + i);
    if (dbias_ != nullptr) hn::StoreU(c.db, d, dbias_ + i);
  }

  // Rows [first, first + kRows).
  template <int kRows>
  void Sum(int64_t first) {
    const D d;
    const int64_t lanes = static_cast<int64_t>(hn::Lanes(d));
    using V = hn::Vec<D>;
    std::array<Sums<V>, kRows> sums;
    sums.fill({hn::Zero(d), hn::Zero(d)});
    int64_t i = 0;
    for (; i + 2 * lanes <= n_; i += 2 * lanes) {
      const auto w = LoadTwo(d, weight_ + i);
      auto a = Gradients(d, i, w.a), b = Gradients(d, i + lanes, w.b);
      for (int t = 0; t < kRows; ++t) {
        const auto z = LoadTwo(d, z_ + (first + t) * n_ + i);
        const auto dy = LoadTwo(d, dy_ + (first + t) * n_ + i);
        auto& s = sums[static_cast<size_t>(t)];
        Add(d, first + t, z.a, dy.a, a, s);
        Add(d, first + t, z.b, dy.b, b, s);
      }
      Put(d, i, a);
      Put(d, i + lanes, b);
    }
    for (int t = 0; t < kRows; ++t) {
      Finish(first + t, i, sums[static_cast<size_t>(t)]);
    }
  }

  // Adds up row t's lanes, and its columns from i on, which fill no two vectors.
  void Finish(int64_t t, int64_t i, const Sums<hn::Vec<D>>& lanes) {
    const One one;
    Sums<hn::Vec<One>> s = {hn::Set(one, Total<Lane>(lanes.p)),
                            hn::Set(one, Total<Lane>(lanes.q))};
    for (; i < n_; ++i) {
      auto c = Gradients(one, i, Codec<T>::Load(one, weight_ + i));
      Add(one, t, Codec<T>::Load(one, z_ + t * n_ + i),
          Codec<T>::Load(one, dy_ + t * n_ + i), c, s);
      Put(one, i, c);
    }
    p_[t] = hn::GetLane(s.p), q_[t] = hn::GetLane(s.q);
  }

  // `last`: there is no row t in a next tile, to be brought from memory while
  // units are busy with this one. n q as (z - m) (r q): as many roundings, and one product less per element.
  void InputGradient(int64_t t, bool last) const {
    const auto count = static_cast<Lane>(n_);
    const Lane p = p_[t] / count, r = inverse_[t], rq = r * (q_[t] / count);
    const auto gradient = [&](auto d, auto z, auto dy, auto w) {
      auto v = kCentred ? hn::MulSub(dy, w, hn::Set(d, p)) : hn::Mul(dy, w);
      v = hn::NegMulAdd(Deviation(d, t, z), hn::Set(d, rq), v);
      return hn::Mul(hn::Set(d, r), v);
    };
    const auto with_dz = [&](auto d, auto z, auto dy, auto w, auto dz) {
      return hn::Add(gradient(d, z, dy, w), dz);
    };
    for (int64_t i = 0; i < n_; i += kPiece<T>) {
      const int64_t size = std::min(kPiece<T>, n_ - i), at = t * n_ + i;
      if (!last) {
        Prefetch(z_ + kTile * n_ + at, size);
        Prefetch(dy_ + kTile * n_ + at, size);
      }
      if (dz_ == nullptr) {
        Elementwise<T>(size, gradient, dx_ + at, z_ + at, dy_ + at,
                       weight_ + i);
      } else {
        Elementwise<T>(size, with_dz, dx_ + at, z_ + at, dy_ + at, weight_ + i,
                       dz_ + at);
      }
    }
  }

  int64_t n_;
  const T *z_, *dy_, *weight_;
  const Lane *mean_, *inverse_;
  const T* dz_;
  T* dx_;
  Lane *dweight_, *dbias_;
  Lane p_[kTile] = {}, q_[kTile] = {};
};

// From the order of LoadTwo to that of the columns.
template <typename T>
void PutInOrder(typename Codec<T>::Lane* sums, int64_t n) {
  if constexpr (Codec<T>::kEvenOdd) {
    const hn::ScalableTag<float> d;
    const int64_t lanes = static_cast<int64_t>(hn::Lanes(d));
    for (int64_t i = 0; i + 2 * lanes <= n; i += 2 * lanes) {
      hn::StoreInterleaved2(hn::LoadU(d, sums + i),
                            hn::LoadU(d, sums + i + lanes), d, sums + i);
    }
  }
}

template <typename T, bool kCentred>
void Backward(const NormRows& r, const NormalizeBackwardArgs& a) {
  using Lane = typename Codec<T>::Lane;
  for (void* const sums : {a.dweight, a.dbias}) {
    if (sums != nullptr) {
      std::fill_n(static_cast<Lane*>(sums), r.columns, Lane{0});
    }
  }
  for (int64_t i = 0; i < r.rows; i += kTile) {
    BackwardTile<T, kCentred>(r, a, i).Run(
        std::min<int64_t>(kTile, r.rows - i));
  }
  for (void* const sums : {a.dweight, a.dbias}) {
    if (sums != nullptr) PutInOrder<T>(static_cast<Lane*>(sums), r.columns);
  }
}

template <typename T>
void ForwardTyped(const NormRows& r, const NormalizeArgs& a) {
  return r.centred ? Forward<T, true>(r, a) : Forward<T, false>(r, a);
}

template <typename T>
void BackwardTyped(const NormRows& r, const NormalizeBackwardArgs& a) {
  return r.centred ? Backward<T, true>(r, a) : Backward<T, false>(r, a);
}

void NormalizeDispatched(const NormRows& r, const NormalizeArgs& a) {
  switch (r.dtype) {
    case DType::kF64:
      return ForwardTyped<double>(r, a);
    case DType::kF32:
      return ForwardTyped<float>(r, a);
    case DType::kBF16:
      return ForwardTyped<BFloat16>(r, a);
    default:
      return ForwardTyped<Float16>(r, a);
  }
}

void NormalizeBackwardDispatched(const NormRows& r,
                                 const NormalizeBackwardArgs& a) {
  switch (r.dtype) {
    case DType::kF64:
      return BackwardTyped<double>(r, a);
    case DType::kF32:
      return BackwardTyped<float>(r, a);
    case DType::kBF16:
      return BackwardTyped<BFloat16>(r, a);
    default:
      return BackwardTyped<Float16>(r, a);
  }
}

}  // namespace shardproof::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace shardproof {
namespace kernels {

HWY_EXPORT(NormalizeDispatched);
HWY_EXPORT(NormalizeBackwardDispatched);

namespace {

Status CheckType(DType dtype) {
  if (dtype == DType::kF64 || dtype == DType::kF32 || dtype == DType::kBF16 ||
      dtype == DType::kF16) {
    return OkStatus();
  }
  return Unsupported("norms are of f64, f32, bf16 or f16, not {}", Name(dtype));
}

Status Forward(const NormRows& rows, const NormalizeArgs& args) {
  HWY_DYNAMIC_DISPATCH(NormalizeDispatched)(rows, args);
  return OkStatus();
}

Status Backward(const NormRows& rows, const NormalizeBackwardArgs& args) {
  HWY_DYNAMIC_DISPATCH(NormalizeBackwardDispatched)(rows, args);
  return OkStatus();
}

}  // namespace

}  // namespace kernels

Status Normalize(const Stream& stream, const NormRows& rows,
                 const NormalizeArgs& args) {
  SP_RETURN_IF_ERROR(kernels::CheckType(rows.dtype));
  return RunKernel(
      stream,
      [=](LayerKernels& device) { return device.Normalize(rows, args); },
      [=] { return kernels::Forward(rows, args); });
}

Status NormalizeBackward(const Stream& stream, const NormRows& rows,
                         const NormalizeBackwardArgs& args) {
  SP_RETURN_IF_ERROR(kernels::CheckType(rows.dtype));
  return RunKernel(
      stream,
      [=](LayerKernels& device) {
        return device.NormalizeBackward(rows, args);
      },
      [=] { return kernels::Backward(rows, args); });
}

Status RoundSums(const Stream& stream, DType dtype, int64_t n, const void* sums,
                 void* out) {
  SP_RETURN_IF_ERROR(kernels::CheckType(dtype));
  const auto host = [=] {
    if (dtype != DType::kF64) {
      kernels::Narrow(dtype, static_cast<const float*>(sums), nullptr, n, out);
    } else if (n > 0) {
      std::memcpy(out, sums, static_cast<size_t>(n) * sizeof(double));
    }
    return Status();
  };
  return RunKernel(
      stream,
      [=](LayerKernels& device) {
        return device.RoundSums(dtype, n, sums, out);
      },
      host);
}

}  // namespace shardproof
#endif  // HWY_ONCE
