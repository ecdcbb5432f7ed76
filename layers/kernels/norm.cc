#include "layers/kernels/norm.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "collectives/kernels/targets.h"
#include "layers/kernels/convert.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "layers/kernels/norm.cc"
#include "hwy/foreach_target.h"
#include "hwy/highway.h"

// After highway.h, once per instruction set.
#include "collectives/kernels/codec-inl.h"

HWY_BEFORE_NAMESPACE();
namespace shardproof::kernels::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

// Rows whose sums are in registers together, in the backward pass.
constexpr int64_t kTile = 4;

template <typename Lane, class V>
HWY_INLINE Lane Total(V v) {
  const hn::ScalableTag<Lane> d;
  return hn::GetLane(hn::SumOfLanes(d, v));
}

// Calls step(d, i) for whole vectors and then for single lanes.
template <typename Lane, class Step>
HWY_INLINE void ForColumns(int64_t n, Step step) {
  const hn::ScalableTag<Lane> d;
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(d));
  int64_t i = 0;
  for (; i + lanes <= n; i += lanes) step(d, i);
  for (; i < n; ++i) step(hn::CappedTag<Lane, 1>(), i);
}

// The sum of term(d, i) over the columns: four sums side by side, since one
// would wait for its last addition.
template <typename Lane, class Term>
HWY_INLINE Lane SumColumns(int64_t n, Term term) {
  const hn::ScalableTag<Lane> d;
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(d));
  auto a = hn::Zero(d), b = a, c = a, e = a;
  int64_t i = 0;
  for (; i + 4 * lanes <= n; i += 4 * lanes) {
    a = hn::Add(a, term(d, i));
    b = hn::Add(b, term(d, i + lanes));
    c = hn::Add(c, term(d, i + 2 * lanes));
    e = hn::Add(e, term(d, i + 3 * lanes));
  }
  for (; i + lanes <= n; i += lanes) a = hn::Add(a, term(d, i));
  Lane sum = Total<Lane>(hn::Add(hn::Add(a, b), hn::Add(c, e)));
  for (; i < n; ++i) sum += hn::GetLane(term(hn::CappedTag<Lane, 1>(), i));
  return sum;
}

template <typename T, bool kCentred>
void ForwardRow(const NormRows& r, const T* x, const T* residual,
                const T* weight, const T* bias, T* z, T* y,
                typename Codec<T>::Lane* mean,
                typename Codec<T>::Lane* inverse) {
  using Lane = typename Codec<T>::Lane;
  const int64_t n = r.columns;
  if (residual != nullptr) {
    ForColumns<Lane>(n, [&](auto d, int64_t i) {
      Codec<T>::Store(
          hn::Add(Codec<T>::Load(d, x + i), Codec<T>::Load(d, residual + i)), d,
          z + i);
    });
    x = z;
  }
  const auto count = static_cast<Lane>(n);
  Lane m = 0;
  if constexpr (kCentred) {
    m = SumColumns<Lane>(
            n, [&](auto d, int64_t i) { return Codec<T>::Load(d, x + i); }) /
        count;
    *mean = m;
  }
  const auto deviation = [&](auto d, int64_t i) {
    const auto v = Codec<T>::Load(d, x + i);
    if constexpr (!kCentred) return v;
    return hn::Sub(v, hn::Set(d, m));
  };
  const Lane squares = SumColumns<Lane>(n, [&](auto d, int64_t i) {
    const auto v = deviation(d, i);
    return hn::Mul(v, v);
  });
  const Lane s = 1 / std::sqrt(squares / count + static_cast<Lane>(r.epsilon));
  *inverse = s;
  ForColumns<Lane>(n, [&](auto d, int64_t i) {
    const auto normal = hn::Mul(deviation(d, i), hn::Set(d, s));
    const auto w = Codec<T>::Load(d, weight + i);
    Codec<T>::Store(bias == nullptr
                        ? hn::Mul(normal, w)
                        : hn::MulAdd(normal, w, Codec<T>::Load(d, bias + i)),
                    d, y + i);
  });
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
                            static_cast<const T*>(a.bias), z ? z + at : nullptr,
                            y + at, kCentred ? mean + i : nullptr, inverse + i);
  }
}

// The backward pass of up to kTile rows: sums of all of them in one pass over
// the columns, which also adds them to dweight and dbias; then dx, row by row.
template <typename T, bool kCentred>
class BackwardTile {
  using Lane = typename Codec<T>::Lane;

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

  void Run(int64_t rows) {
    if (rows == kTile) {
      SumFour();
    } else {
      for (int64_t t = 0; t < rows; ++t) SumOne(t);
    }
    for (int64_t t = 0; t < rows; ++t) InputGradient(t);
  }

 private:
  template <class D>
  HWY_INLINE hn::Vec<D> Normal(D d, int64_t t, int64_t i) const {
    auto v = Codec<T>::Load(d, z_ + t * n_ + i);
    if constexpr (kCentred) v = hn::Sub(v, hn::Set(d, mean_[t]));
    return hn::Mul(v, hn::Set(d, inverse_[t]));
  }

  // Row t at columns i: what it adds to the four sums.
  template <class D, class V>
  HWY_INLINE void Add(D d, int64_t t, int64_t i, V w, V& dw, V& db, V& p,
                      V& q) const {
    const auto dy = Codec<T>::Load(d, dy_ + t * n_ + i);
    const auto normal = Normal(d, t, i);
    const auto g = hn::Mul(dy, w);
    dw = hn::MulAdd(dy, normal, dw);
    db = hn::Add(db, dy);
    if constexpr (kCentred) p = hn::Add(p, g);
    q = hn::MulAdd(g, normal, q);
  }

  // The columns at i of dweight and dbias with what `add` adds to them.
  template <class D, class Do>
  HWY_INLINE void Update(D d, int64_t i, Do add) const {
    const auto w = Codec<T>::Load(d, weight_ + i);
    auto dw = hn::LoadU(d, dweight_ + i);
    auto db = dbias_ != nullptr ? hn::LoadU(d, dbias_ + i) : hn::Zero(d);
    add(w, dw, db);
    hn::StoreU(dw, d, dweight_ + i);
    if (dbias_ != nullptr) hn::StoreU(db, d, dbias_ + i);
  }

  void SumFour() {
    const hn::ScalableTag<Lane> d;
    const int64_t lanes = static_cast<int64_t>(hn::Lanes(d));
    auto p0 = hn::Zero(d), p1 = p0, p2 = p0, p3 = p0;
    auto q0 = p0, q1 = p0, q2 = p0, q3 = p0;
    int64_t i = 0;
    for (; i + lanes <= n_; i += lanes) {
      Update(d, i, [&](auto w, auto& dw, auto& db) {
        Add(d, 0, i, w, dw, db, p0, q0);
        Add(d, 1, i, w, dw, db, p1, q1);
        Add(d, 2, i, w, dw, db, p2, q2);
        Add(d, 3, i, w, dw, db, p3, q3);
      });
    }
    p_[0] = Total<Lane>(p0), q_[0] = Total<Lane>(q0);
    p_[1] = Total<Lane>(p1), q_[1] = Total<Lane>(q1);
    p_[2] = Total<Lane>(p2), q_[2] = Total<Lane>(q2);
    p_[3] = Total<Lane>(p3), q_[3] = Total<Lane>(q3);
    for (int64_t t = 0; t < kTile; ++t) AddRest(t, i);
  }

  void SumOne(int64_t t) {
    const hn::ScalableTag<Lane> d;
    const int64_t lanes = static_cast<int64_t>(hn::Lanes(d));
    auto p = hn::Zero(d), q = p;
    int64_t i = 0;
    for (; i + lanes <= n_; i += lanes) {
      Update(d, i, [&](auto w, auto& dw, auto& db) {
        Add(d, t, i, w, dw, db, p, q);
      });
    }
    p_[t] = Total<Lane>(p), q_[t] = Total<Lane>(q);
    AddRest(t, i);
  }

  // The columns from i on, which fill no vector.
  void AddRest(int64_t t, int64_t i) {
    const hn::CappedTag<Lane, 1> one;
    for (; i < n_; ++i) {
      auto p = hn::Set(one, p_[t]), q = hn::Set(one, q_[t]);
      Update(one, i, [&](auto w, auto& dw, auto& db) {
        Add(one, t, i, w, dw, db, p, q);
      });
      p_[t] = hn::GetLane(p), q_[t] = hn::GetLane(q);
    }
  }

  void InputGradient(int64_t t) const {
    const auto count = static_cast<Lane>(n_);
    const Lane p = p_[t] / count, q = q_[t] / count, r = inverse_[t];
    const int64_t row = t * n_;
    ForColumns<Lane>(n_, [&](auto d, int64_t i) {
      auto v = hn::Mul(Codec<T>::Load(d, dy_ + row + i),
                       Codec<T>::Load(d, weight_ + i));
      if constexpr (kCentred) v = hn::Sub(v, hn::Set(d, p));
      v = hn::NegMulAdd(Normal(d, t, i), hn::Set(d, q), v);
      v = hn::Mul(hn::Set(d, r), v);
      if (dz_ != nullptr) v = hn::Add(v, Codec<T>::Load(d, dz_ + row + i));
      Codec<T>::Store(v, d, dx_ + row + i);
    });
  }

  int64_t n_;
  const T *z_, *dy_, *weight_;
  const Lane *mean_, *inverse_;
  const T* dz_;
  T* dx_;
  Lane *dweight_, *dbias_;
  Lane p_[kTile] = {}, q_[kTile] = {};
};

template <typename T, bool kCentred>
void Backward(const NormRows& r, const NormalizeBackwardArgs& a) {
  using Lane = typename Codec<T>::Lane;
  std::fill_n(static_cast<Lane*>(a.dweight), r.columns, Lane{0});
  if (a.dbias != nullptr) {
    std::fill_n(static_cast<Lane*>(a.dbias), r.columns, Lane{0});
  }
  for (int64_t i = 0; i < r.rows; i += kTile) {
    BackwardTile<T, kCentred>(r, a, i).Run(std::min(kTile, r.rows - i));
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
  return stream.Run([rows, args] { return kernels::Forward(rows, args); });
}

Status NormalizeBackward(const Stream& stream, const NormRows& rows,
                         const NormalizeBackwardArgs& args) {
  SP_RETURN_IF_ERROR(kernels::CheckType(rows.dtype));
  return stream.Run([rows, args] { return kernels::Backward(rows, args); });
}

Status RoundSums(const Stream& stream, DType dtype, int64_t n, const void* sums,
                 void* out) {
  SP_RETURN_IF_ERROR(kernels::CheckType(dtype));
  return stream.Run([=] {
    if (dtype != DType::kF64) {
      kernels::Narrow(dtype, static_cast<const float*>(sums), nullptr, n, out);
    } else if (n > 0) {
      std::memcpy(out, sums, static_cast<size_t>(n) * sizeof(double));
    }
    return Status();
  });
}

}  // namespace shardproof
#endif  // HWY_ONCE
