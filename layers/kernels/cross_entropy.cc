#include "layers/kernels/cross_entropy.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <cstring>
#include <limits>
#include <type_traits>

#include "collectives/kernels/targets.h"
#include "layers/kernels/layer_kernels.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "layers/kernels/cross_entropy.cc"
#include "hwy/cache_control.h"
#include "hwy/foreach_target.h"
#include "hwy/highway.h"

// After highway.h, once per instruction set.
#include "layers/kernels/elementwise-inl.h"
#include "layers/kernels/exp-inl.h"

HWY_BEFORE_NAMESPACE();
namespace shardproof::kernels::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

template <class Lane>
struct RowSums {
  Lane max = -std::numeric_limits<Lane>::infinity();
  Lane exp = 0;     // Sum of exp(x - max).
  Lane spread = 0;  // Sum of x - max.
};

// Widens `size` elements of a row into `wide`, in the order of LoadTwo, and
// fills the last vector up with what no sum notices. Returns their maximum.
template <typename T, typename Lane = typename Codec<T>::Lane>
HWY_INLINE Lane WidenBlock(const T* x, int64_t size, Lane* wide) {
  const hn::ScalableTag<Lane> d;
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(d));
  const auto lowest = hn::Set(d, -std::numeric_limits<Lane>::infinity());
  auto largest = lowest, largest_too = lowest;
  int64_t i = 0;
  for (; i + 2 * lanes <= size; i += 2 * lanes) {
    hn::Vec<decltype(d)> a, b;
    Codec<T>::LoadTwo(d, x + i, a, b);
    hn::Store(a, d, wide + i);
    hn::Store(b, d, wide + i + lanes);
    largest = hn::Max(largest, a);
    largest_too = hn::Max(largest_too, b);
  }
  for (; i < size; i += lanes) {
    const auto rest = static_cast<size_t>(std::min(lanes, size - i));
    HWY_ALIGN std::array<T, hn::MaxLanes(d)> tail{};
    std::memcpy(static_cast<void*>(tail.data()), x + i, rest * sizeof(T));
    const auto v = hn::IfThenElse(hn::FirstN(d, rest),
                                  Codec<T>::Load(d, tail.data()), lowest);
    hn::Store(v, d, wide + i);
    largest = hn::Max(largest, v);
  }
  return hn::GetLane(hn::MaxOfLanes(d, hn::Max(largest, largest_too)));
}

// One row, block by block: a block is widened into scratch while its maximum is
// looked for, and summed up from there. While it is, the next one comes from
// memory.
template <typename T, bool kSpread>
RowSums<typename Codec<T>::Lane> SumRow(const T* x, int64_t n) {
  using Lane = typename Codec<T>::Lane;
  const hn::ScalableTag<Lane> d;
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(d));
  constexpr Lane kLowest = -std::numeric_limits<Lane>::infinity();
  constexpr int64_t kLine = 64 / static_cast<int64_t>(sizeof(T));
  HWY_ALIGN std::array<Lane, kCrossEntropyBlock> wide;
  RowSums<Lane> row;
  for (int64_t begin = 0; begin < n; begin += kCrossEntropyBlock) {
    const int64_t size = std::min(kCrossEntropyBlock, n - begin);
    const Lane block_max = WidenBlock(x + begin, size, wide.data());
    if (block_max > row.max) {
      // exp is 0 before the first block, whose maximum is lower than any.
      row.exp *= std::exp(row.max - block_max);
      if (kSpread && begin > 0) {
        row.spread += static_cast<Lane>(begin) * (row.max - block_max);
      }
      row.max = block_max;
    }
    // Without a finite number so far, any reference will do.
    const auto m = hn::Set(d, row.max == kLowest ? Lane{0} : row.max);
    using V = hn::Vec<decltype(d)>;
    constexpr int64_t kVectors = 4;
    std::array<V, kVectors> sums;
    sums.fill(hn::Zero(d));
    auto differences = hn::Zero(d);
    int64_t i = 0;
    for (; i + kVectors * lanes <= size; i += kVectors * lanes) {
      for (int64_t j = 0; j < kVectors * lanes; j += kLine) {
        hwy::Prefetch(x + std::min(begin + kCrossEntropyBlock + i + j, n - 1));
      }
      std::array<V, kVectors> e;
      for (int64_t v = 0; v < kVectors; ++v) {
        const auto u = static_cast<size_t>(v);
        e[u] = hn::Sub(hn::Load(d, wide.data() + i + v * lanes), m);
        if constexpr (kSpread) differences = hn::Add(differences, e[u]);
      }
      ExpOfNegative(d, e);
      for (size_t v = 0; v < kVectors; ++v) sums[v] = hn::Add(sums[v], e[v]);
    }
    for (; i < size; i += lanes) {
      const auto d0 = hn::Sub(hn::Load(d, wide.data() + i), m);
      sums[0] = hn::Add(sums[0], ExpOfNegative(d, d0));
      if constexpr (kSpread) {
        const auto mask = hn::FirstN(
            d, static_cast<size_t>(std::min<int64_t>(lanes, size - i)));
        differences = hn::Add(differences, hn::IfThenElseZero(mask, d0));
      }
    }
    row.exp += hn::GetLane(hn::SumOfLanes(
        d, hn::Add(hn::Add(sums[0], sums[1]), hn::Add(sums[2], sums[3]))));
    if constexpr (kSpread) {
      row.spread += hn::GetLane(hn::SumOfLanes(d, differences));
    }
  }
  return row;
}

// (exp(x - m) / S - q) w as exp(x - m) (w / S) - q w, where the last difference
// is rounded once: as many roundings, and a third of the instructions.
template <class Lane>
struct LogitGradient {
  Lane max, scale, shift;
  template <class D, class V>
  HWY_INLINE V operator()(D d, V x) const {
    const V e = ExpOfNegative(d, hn::Sub(x, hn::Set(d, max)));
    return hn::MulSub(e, hn::Set(d, scale), hn::Set(d, shift));
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
      row = shape.smoothing > 0 ? SumRow<T, true>(logits, shape.valid)
                                : SumRow<T, false>(logits, shape.valid);
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
      const double w =
          static_cast<double>(upstream[up.per_token ? i : 0]) / up.count;
      LogitGradient<Lane> gradient{
          .max = max[i],
          .scale = static_cast<Lane>(static_cast<double>(inverse[i]) * w),
          .shift = static_cast<Lane>(q * w)};
      const int64_t target = targets[i] - shape.begin;
      const bool own = target >= 0 && target < shape.valid;
      T at_target{};
      if (own) at_target = logits[target];  // It may be overwritten.
      Elementwise<T>(shape.valid, gradient, dlogits, logits);
      if (own) {
        gradient.shift = static_cast<Lane>((q + (1 - shape.smoothing)) * w);
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

// Here, since a build for one instruction set names the namespace of that one.
void Local(const CrossEntropyShape& shape, const void* logits,
           const int64_t* targets, void* local_max, void* sums) {
  HWY_DYNAMIC_DISPATCH(LocalDispatched)
  (shape, logits, targets, local_max, sums);
}

void Gradient(const CrossEntropyShape& shape, const void* logits,
              const int64_t* targets, const void* max, const void* inverse,
              const CrossEntropyUpstream& up, void* dlogits) {
  HWY_DYNAMIC_DISPATCH(GradientDispatched)
  (shape, logits, targets, max, inverse, up, dlogits);
}

}  // namespace
}  // namespace kernels

Status CrossEntropyLocal(const CrossEntropyShape& shape, const void* logits,
                         const int64_t* targets, void* local_max, void* sums) {
  return RunHere(
      [&](LayerKernels& device) {
        return device.CrossEntropyLocal(shape, logits, targets, local_max,
                                        sums);
      },
      [&] {
        kernels::Local(shape, logits, targets, local_max, sums);
        return OkStatus();
      });
}

Status CrossEntropyRescale(const CrossEntropyShape& shape, const void* logits,
                           const int64_t* targets, const void* local_max,
                           const void* max, void* sums) {
  return RunHere(
      [&](LayerKernels& device) {
        return device.CrossEntropyRescale(shape, logits, targets, local_max,
                                          max, sums);
      },
      [&] {
        Visit(shape.dtype, [&]<typename T>(TypeTag<T>) {
          using Lane =
              std::conditional_t<std::is_same_v<T, double>, double, float>;
          kernels::RescaleTyped(shape, static_cast<const T*>(logits), targets,
                                static_cast<const Lane*>(local_max),
                                static_cast<const Lane*>(max),
                                static_cast<Lane*>(sums));
        });
        return OkStatus();
      });
}

StatusOr<double> CrossEntropyLoss(const CrossEntropyShape& shape,
                                  const int64_t* targets, void* sums,
                                  void* loss) {
  double total = 0;
  SP_RETURN_IF_ERROR(RunHere(
      [&](LayerKernels& device) {
        return device.CrossEntropyLoss(shape, targets, sums, loss, &total);
      },
      [&] {
        total =
            shape.dtype == DType::kF64
                ? kernels::LossTyped(shape, targets, static_cast<double*>(sums),
                                     static_cast<double*>(loss))
                : kernels::LossTyped(shape, targets, static_cast<float*>(sums),
                                     static_cast<float*>(loss));
        return OkStatus();
      }));
  return total;
}

Status CrossEntropyGradient(const CrossEntropyShape& shape, const void* logits,
                            const int64_t* targets, const void* max,
                            const void* inverse_sums,
                            const CrossEntropyUpstream& upstream,
                            void* dlogits) {
  return RunHere(
      [&](LayerKernels& device) {
        return device.CrossEntropyGradient(shape, logits, targets, max,
                                           inverse_sums, upstream, dlogits);
      },
      [&] {
        kernels::Gradient(shape, logits, targets, max, inverse_sums, upstream,
                          dlogits);
        return OkStatus();
      });
}

}  // namespace shardproof
#endif  // HWY_ONCE
