#include "layers/kernels/cross_entropy.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <cstring>
#include <limits>
#include <type_traits>

#include "collectives/kernels/targets.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "layers/kernels/cross_entropy.cc"
#include "hwy/foreach_target.h"
#include "hwy/highway.h"

// After highway.h, once per instruction set.
#include "hwy/contrib/math/math-inl.h"
#include "layers/kernels/elementwise-inl.h"

HWY_BEFORE_NAMESPACE();
namespace shardproof::kernels::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

// hn::Exp takes NaN for something very small.
template <class D, class V>
HWY_INLINE V ExpOrNan(D d, V x) {
  return hn::IfThenElse(hn::IsNaN(x), x, hn::Exp(d, x));
}

template <class Lane>
struct RowSums {
  Lane max = -std::numeric_limits<Lane>::infinity();
  Lane exp = 0;     // Sum of exp(x - max).
  Lane spread = 0;  // Sum of x - max.
};

// One row, block by block: a block is widened into scratch while its maximum is
// looked for, and summed up from there.
template <typename T>
RowSums<typename Codec<T>::Lane> SumRow(const T* x, int64_t n, bool spread) {
  using Lane = typename Codec<T>::Lane;
  const hn::ScalableTag<Lane> d;
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(d));
  constexpr Lane kLowest = -std::numeric_limits<Lane>::infinity();
  HWY_ALIGN std::array<Lane, kCrossEntropyBlock> wide;
  RowSums<Lane> row;
  for (int64_t begin = 0; begin < n; begin += kCrossEntropyBlock) {
    const int64_t size = std::min(kCrossEntropyBlock, n - begin);
    const int64_t whole = size / lanes * lanes;
    auto largest = hn::Set(d, kLowest);
    for (int64_t i = 0; i < whole; i += lanes) {
      const auto v = Codec<T>::Load(d, x + begin + i);
      hn::Store(v, d, wide.data() + i);
      largest = hn::Max(largest, v);
    }
    if (whole < size) {
      HWY_ALIGN std::array<T, hn::MaxLanes(d)> tail{};
      std::memcpy(static_cast<void*>(tail.data()), x + begin + whole,
                  static_cast<size_t>(size - whole) * sizeof(T));
      // Beyond the row, what no sum notices.
      const auto v =
          hn::IfThenElse(hn::FirstN(d, static_cast<size_t>(size - whole)),
                         Codec<T>::Load(d, tail.data()), hn::Set(d, kLowest));
      hn::Store(v, d, wide.data() + whole);
      largest = hn::Max(largest, v);
    }
    const Lane block_max = hn::GetLane(hn::MaxOfLanes(d, largest));
    if (block_max > row.max) {
      // exp is 0 before the first block, whose maximum is lower than any.
      row.exp *= std::exp(row.max - block_max);
      if (spread && begin > 0)
        row.spread += static_cast<Lane>(begin) * (row.max - block_max);
      row.max = block_max;
    }
    // Without a finite number so far, any reference will do.
    const auto m = hn::Set(d, row.max == kLowest ? Lane{0} : row.max);
    auto exp0 = hn::Zero(d), exp1 = hn::Zero(d), differences = hn::Zero(d);
    int64_t i = 0;
    for (; i + 2 * lanes <= size; i += 2 * lanes) {
      const auto d0 = hn::Sub(hn::Load(d, wide.data() + i), m);
      const auto d1 = hn::Sub(hn::Load(d, wide.data() + i + lanes), m);
      exp0 = hn::Add(exp0, ExpOrNan(d, d0));
      exp1 = hn::Add(exp1, ExpOrNan(d, d1));
      if (spread) differences = hn::Add(differences, hn::Add(d0, d1));
    }
    for (; i < size; i += lanes) {
      const auto d0 = hn::Sub(hn::Load(d, wide.data() + i), m);
      exp0 = hn::Add(exp0, ExpOrNan(d, d0));
      const auto mask = hn::FirstN(
          d, static_cast<size_t>(std::min<int64_t>(lanes, size - i)));
      if (spread)
        differences = hn::Add(differences, hn::IfThenElseZero(mask, d0));
    }
    row.exp += hn::GetLane(hn::SumOfLanes(d, hn::Add(exp0, exp1)));
    if (spread) row.spread += hn::GetLane(hn::SumOfLanes(d, differences));
  }
  return row;
}

struct LogitGradient {
  double max, inverse_sum, q, w;
  template <class D, class V>
  HWY_INLINE V operator()(D d, V x) const {
    using Lane = hn::TFromD<D>;
    const auto set = [&](double v) { return hn::Set(d, static_cast<Lane>(v)); };
    const V p = hn::Mul(ExpOrNan(d, hn::Sub(x, set(max))), set(inverse_sum));
    return hn::Mul(hn::Sub(p, set(q)), set(w));
  }
};

template <typename T>
void LocalTyped(const CrossEntropyShape& shape, const T* logits,
                const int64_t* targets, void* max_out, void* sums_out) {
  using Lane = typename Codec<T>::Lane;
  auto* max = static_cast<Lane*>(max_out);
  auto* sums = static_cast<Lane*>(sums_out);
  for (int64_t i = 0; i < shape.tokens; ++i, logits += shape.columns) {
    RowSums<Lane> row;
    if (targets[i] == shape.ignore_index) {
      row.max = 0;
    } else {
      row = SumRow(logits, shape.valid, shape.smoothing > 0);
    }
    max[i] = row.max;
    sums[i] = row.exp;
    sums[shape.tokens + i] = row.spread;
  }
}

template <typename T>
void GradientTyped(const CrossEntropyShape& shape, const T* logits,
                   const int64_t* targets, const void* max_in,
                   const void* inverse_in, const CrossEntropyUpstream& up,
                   T* dlogits) {
  using Lane = typename Codec<T>::Lane;
  const auto* max = static_cast<const Lane*>(max_in);
  const auto* inverse = static_cast<const Lane*>(inverse_in);
  const auto* upstream = static_cast<const Lane*>(up.upstream);
  const double q = shape.smoothing / static_cast<double>(shape.vocabulary);
  for (int64_t i = 0; i < shape.tokens;
       ++i, logits += shape.columns, dlogits += shape.columns) {
    int64_t zeros = 0;  // From here on.
    if (targets[i] != shape.ignore_index) {
      LogitGradient gradient{
          .max = max[i],
          .inverse_sum = inverse[i],
          .q = q,
          .w = static_cast<double>(upstream[up.per_token ? i : 0]) / up.count};
      const int64_t target = targets[i] - shape.begin;
      const bool own = target >= 0 && target < shape.valid;
      T at_target{};
      if (own) at_target = logits[target];  // It may be overwritten.
      Elementwise<T>(shape.valid, gradient, dlogits, logits);
      if (own) {
        gradient.q = q + (1 - shape.smoothing);
        Elementwise<T>(1, gradient, dlogits + target,
                       static_cast<const T*>(&at_target));
      }
      zeros = shape.valid;
    }
    if (zeros == shape.columns) continue;
    std::memset(static_cast<void*>(dlogits + zeros), 0,
                static_cast<size_t>(shape.columns - zeros) * sizeof(T));
  }
}

void LocalDispatched(const CrossEntropyShape& shape, const void* logits,
                     const int64_t* targets, void* max, void* sums) {
  const auto run = [&]<typename T>(TypeTag<T>) {
    LocalTyped(shape, static_cast<const T*>(logits), targets, max, sums);
  };
  switch (shape.dtype) {
    case DType::kF64:
      return run(TypeTag<double>());
    case DType::kF32:
      return run(TypeTag<float>());
    case DType::kBF16:
      return run(TypeTag<BFloat16>());
    default:
      return run(TypeTag<Float16>());
  }
}

void GradientDispatched(const CrossEntropyShape& shape, const void* logits,
                        const int64_t* targets, const void* max,
                        const void* inverse, const CrossEntropyUpstream& up,
                        void* dlogits) {
  const auto run = [&]<typename T>(TypeTag<T>) {
    GradientTyped(shape, static_cast<const T*>(logits), targets, max, inverse,
                  up, static_cast<T*>(dlogits));
  };
  switch (shape.dtype) {
    case DType::kF64:
      return run(TypeTag<double>());
    case DType::kF32:
      return run(TypeTag<float>());
    case DType::kBF16:
      return run(TypeTag<BFloat16>());
    default:
      return run(TypeTag<Float16>());
  }
}

}  // namespace shardproof::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace shardproof {
namespace kernels {

HWY_EXPORT(LocalDispatched);
HWY_EXPORT(GradientDispatched);

namespace {

// Per token, so that a plain loop serves.
template <typename T, typename Lane>
void RescaleTyped(const CrossEntropyShape& shape, const T* logits,
                  const int64_t* targets, const Lane* local_max,
                  const Lane* max, Lane* sums) {
  const auto share = static_cast<Lane>(shape.smoothing /
                                       static_cast<double>(shape.vocabulary));
  const auto rest = static_cast<Lane>(1 - shape.smoothing);
  const auto valid = static_cast<Lane>(shape.valid);
  for (int64_t i = 0; i < shape.tokens; ++i) {
    if (targets[i] == shape.ignore_index) continue;
    Lane& weighted = sums[shape.tokens + i];
    if (shape.valid == 0) continue;  // Zeros; the maximum is -inf.
    const Lane shift = local_max[i] - max[i];
    sums[i] *= std::exp(shift);
    if (shape.smoothing > 0) weighted = share * (weighted + valid * shift);
    const int64_t target = targets[i] - shape.begin;
    if (target >= 0 && target < shape.valid) {
      const auto x = static_cast<Lane>(logits[i * shape.columns + target]);
      weighted += rest * (x - max[i]);
    }
  }
}

template <typename Lane>
double LossTyped(const CrossEntropyShape& shape, const int64_t* targets,
                 Lane* sums, Lane* loss) {
  double total = 0;
  for (int64_t i = 0; i < shape.tokens; ++i) {
    if (targets[i] == shape.ignore_index) {
      loss[i] = 0;
      continue;
    }
    loss[i] = std::log(sums[i]) - sums[shape.tokens + i];
    sums[i] = 1 / sums[i];
    total += static_cast<double>(loss[i]);
  }
  return total;
}

}  // namespace
}  // namespace kernels

void CrossEntropyLocal(const CrossEntropyShape& shape, const void* logits,
                       const int64_t* targets, void* local_max, void* sums) {
  HWY_DYNAMIC_DISPATCH(kernels::LocalDispatched)
  (shape, logits, targets, local_max, sums);
}

void CrossEntropyRescale(const CrossEntropyShape& shape, const void* logits,
                         const int64_t* targets, const void* local_max,
                         const void* max, void* sums) {
  Visit(shape.dtype, [&]<typename T>(TypeTag<T>) {
    using Lane = std::conditional_t<std::is_same_v<T, double>, double, float>;
    kernels::RescaleTyped(shape, static_cast<const T*>(logits), targets,
                          static_cast<const Lane*>(local_max),
                          static_cast<const Lane*>(max),
                          static_cast<Lane*>(sums));
  });
}

double CrossEntropyLoss(const CrossEntropyShape& shape, const int64_t* targets,
                        void* sums, void* loss) {
  if (shape.dtype == DType::kF64) {
    return kernels::LossTyped(shape, targets, static_cast<double*>(sums),
                              static_cast<double*>(loss));
  }
  return kernels::LossTyped(shape, targets, static_cast<float*>(sums),
                            static_cast<float*>(loss));
}

void CrossEntropyGradient(const CrossEntropyShape& shape, const void* logits,
                          const int64_t* targets, const void* max,
                          const void* inverse_sums,
                          const CrossEntropyUpstream& upstream, void* dlogits) {
  HWY_DYNAMIC_DISPATCH(kernels::GradientDispatched)
  (shape, logits, targets, max, inverse_sums, upstream, dlogits);
}

}  // namespace shardproof
#endif  // HWY_ONCE
