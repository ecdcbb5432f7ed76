// The arithmetic of reductions, bitwise as that of the host (collectives/kernels/reduce.h), but for which NaN a NaN is.
//
//     y = T((x_0 op x_1) op ...)               in the accumulator's type, in this order
//     y = T((s_0 x_0 + s_1 x_1) + ...)         kPremulSum
//     y = T(((x_0 + x_1) + ...) / p)           kAvg
//
//     Accumulated<float> a = ...;
//     a = Combine<ReduceOp::kSum>(a, Widen<T, ReduceOp::kSum>(x, args, rank));
//     y = Narrow<T, ReduceOp::kSum>(a, ranks);
//
// f32 and all narrower floating point accumulate in f32 and are rounded once. min and max propagate NaN, and -0 < +0.
// Integers wrap. Conversions are those of reference/dtype.h, which nvcc compiles for the device
// (--expt-relaxed-constexpr); no product and sum are contracted (-fmad=false).
#ifndef SHARDPROOF_COLLECTIVES_BACKEND_CUDA_KERNELS_FOLD_H_
#define SHARDPROOF_COLLECTIVES_BACKEND_CUDA_KERNELS_FOLD_H_

#include <cstdint>
#include <cstring>
#include <type_traits>

#include "collectives/backend/cuda/kernels/walk.h"
#include "collectives/backend/cuda/kernels/world.h"
#include "reference/dtype.h"
#include "reference/reduce_op.h"

namespace shardproof::cuda {

template <class T>
struct AccumulatorType {
  using Type = T;
};
template <typename Bits, int kExponentBits, int kMantissaBits, bool kInfinities>
struct AccumulatorType<
    NarrowFloat<Bits, kExponentBits, kMantissaBits, kInfinities>> {
  using Type = float;
};
template <class T>
using Accumulated = typename AccumulatorType<T>::Type;

template <class A>
struct BitsOf {
  using Type = std::conditional_t<sizeof(A) == 8, uint64_t, uint32_t>;
};

// Without branches, here and below: a vector has up to 16 elements, and threads that part at each of them cost
// registers.
template <bool kMax, class A>
SHARDPROOF_DEVICE A Extremum(A a, A b) {
  const bool first = kMax ? a > b : a < b;
  if constexpr (std::is_floating_point_v<A>) {
    const A chosen = first || a != a ? a : b;
    // Equal numbers have equal bits, but for the sign of zero.
    typename BitsOf<A>::Type x, y;
    memcpy(&x, &a, sizeof(a));
    memcpy(&y, &b, sizeof(b));
    x = kMax ? (x & y) : (x | y);
    A same;
    memcpy(&same, &x, sizeof(x));
    return a == b ? same : chosen;
  } else {
    return first ? a : b;
  }
}

template <ReduceOp kOp, class A>
SHARDPROOF_DEVICE A Combine(A a, A b) {
  if constexpr (kOp == ReduceOp::kMin || kOp == ReduceOp::kMax) {
    return Extremum<kOp == ReduceOp::kMax>(a, b);
  } else if constexpr (std::is_integral_v<A>) {
    // Signed overflow has no meaning. Products of 8 bits are ints, which hold them.
    using U = std::make_unsigned_t<A>;
    const U x = static_cast<U>(a), y = static_cast<U>(b);
    return static_cast<A>(kOp == ReduceOp::kProd ? x * y : x + y);
  } else {
    return kOp == ReduceOp::kProd ? a * b : a + b;
  }
}

// s x in the accumulator's type; exactly x where s is 1.
template <class T, ReduceOp kOp>
SHARDPROOF_DEVICE Accumulated<T> Widen(T x, const CollectiveArgs& args,
                                       int rank) {
  using A = Accumulated<T>;
  const A wide = static_cast<A>(x);
  if constexpr (kOp != ReduceOp::kPremulSum) {
    return wide;
  } else if constexpr (std::is_floating_point_v<A>) {
    return wide * static_cast<A>(args.scales[rank]);
  } else {
    return Combine<ReduceOp::kProd>(
        wide, static_cast<A>(static_cast<int64_t>(args.scales[rank])));
  }
}

template <class T, ReduceOp kOp>
SHARDPROOF_DEVICE T Narrow(Accumulated<T> a, int ranks) {
  using A = Accumulated<T>;
  if constexpr (kOp != ReduceOp::kAvg) {
    return static_cast<T>(a);
  } else if constexpr (std::is_floating_point_v<A>) {
    return static_cast<T>(a / static_cast<A>(ranks));
  } else {
    return static_cast<T>(a / ranks);
  }
}

// The fold over all ranks of what load(rank) gives: an element, or a vector of them.
template <class T, ReduceOp kOp, class LoadElement>
SHARDPROOF_DEVICE T FoldElement(int ranks, const CollectiveArgs& args,
                                const LoadElement& load) {
  Accumulated<T> sum = Widen<T, kOp>(load(0), args, 0);
  for (int rank = 1; rank < ranks; ++rank) {
    sum = Combine<kOp>(sum, Widen<T, kOp>(load(rank), args, rank));
  }
  return Narrow<T, kOp>(sum, ranks);
}

template <class T, ReduceOp kOp, class LoadVector>
SHARDPROOF_DEVICE Vector FoldVector(int ranks, const CollectiveArgs& args,
                                    const LoadVector& load) {
  Accumulated<T> sums[kPerVector<T>];
  const Elements<T> first = Unpack<T>(load(0));
  for (int i = 0; i < kPerVector<T>; ++i) {
    sums[i] = Widen<T, kOp>(first.values[i], args, 0);
  }
  for (int rank = 1; rank < ranks; ++rank) {
    const Elements<T> next = Unpack<T>(load(rank));
    for (int i = 0; i < kPerVector<T>; ++i) {
      sums[i] =
          Combine<kOp>(sums[i], Widen<T, kOp>(next.values[i], args, rank));
    }
  }
  Elements<T> result;
  for (int i = 0; i < kPerVector<T>; ++i) {
    result.values[i] = Narrow<T, kOp>(sums[i], ranks);
  }
  return Pack(result);
}

}  // namespace shardproof::cuda

#endif  // SHARDPROOF_COLLECTIVES_BACKEND_CUDA_KERNELS_FOLD_H_
