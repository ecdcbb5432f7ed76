// The folds of ReduceOp on vectors, for one instruction set: Fold<kMax>::Combine(d, a, b).
#include <cstdint>
#include <type_traits>

#include "hwy/highway.h"
#include "reference/reduce_op.h"

#if defined(SHARDPROOF_COLLECTIVES_KERNELS_FOLD_INL_H_) == \
    defined(HWY_TARGET_TOGGLE)
#ifdef SHARDPROOF_COLLECTIVES_KERNELS_FOLD_INL_H_
#undef SHARDPROOF_COLLECTIVES_KERNELS_FOLD_INL_H_
#else
#define SHARDPROOF_COLLECTIVES_KERNELS_FOLD_INL_H_
#endif

HWY_BEFORE_NAMESPACE();
namespace shardproof::kernels::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

// a * b, modulo 2^width for integers. Highway has no product of 8-bit lanes, and of 64-bit lanes on AVX-512 only.
template <class D>
HWY_INLINE hn::Vec<D> Multiply(D d, hn::Vec<D> a, hn::Vec<D> b) {
  using T = hn::TFromD<D>;
  if constexpr (std::is_floating_point_v<T> || sizeof(T) == 4) {
    return hn::Mul(a, b);
  } else if constexpr (hn::MaxLanes(d) == 1) {
    const auto product = static_cast<uint64_t>(hn::GetLane(a)) *
                         static_cast<uint64_t>(hn::GetLane(b));
    return hn::Set(d, static_cast<T>(product));
  } else if constexpr (sizeof(T) == 1) {
    // As 16-bit lanes: the low byte of the product of low bytes, and the product of high bytes kept in place.
    const hn::Repartition<uint16_t, D> wide;
    const auto low_byte = hn::Set(wide, uint16_t{0x00ff});
    const auto x = hn::BitCast(wide, a), y = hn::BitCast(wide, b);
    const auto low = hn::And(hn::Mul(x, y), low_byte);
    const auto high = hn::Mul(hn::ShiftRight<8>(x), hn::AndNot(low_byte, y));
    return hn::BitCast(d, hn::Or(low, high));
  } else {
    static_assert(sizeof(T) == 8);
    // (a1 2^32 + a0)(b1 2^32 + b0) = a0 b0 + 2^32 (a1 b0 + a0 b1)  mod 2^64. MulEven multiplies the low halves.
    const hn::Repartition<uint32_t, D> half;
    const hn::RebindToUnsigned<D> du;
    const auto x = hn::BitCast(half, a), y = hn::BitCast(half, b);
    const auto x1 = hn::BitCast(half, hn::ShiftRight<32>(hn::BitCast(du, a)));
    const auto y1 = hn::BitCast(half, hn::ShiftRight<32>(hn::BitCast(du, b)));
    const auto cross = hn::Add(hn::MulEven(x1, y), hn::MulEven(x, y1));
    return hn::BitCast(d, hn::Add(hn::MulEven(x, y), hn::ShiftLeft<32>(cross)));
  }
}

// IEEE 754-2019 minimum or maximum: NaN wins, and -0 < +0, so that the order of ranks does not show.
template <bool kMax, class D>
HWY_INLINE hn::Vec<D> Extremum(D, hn::Vec<D> a, hn::Vec<D> b) {
  if constexpr (std::is_floating_point_v<hn::TFromD<D>>) {
    const auto first = kMax ? hn::Gt(a, b) : hn::Lt(a, b);
    const auto chosen = hn::IfThenElse(hn::Or(first, hn::IsNaN(a)), a, b);
    // Equal numbers have equal bits, but for the sign of zero.
    return hn::IfThenElse(hn::Eq(a, b), kMax ? hn::And(a, b) : hn::Or(a, b),
                          chosen);
  } else {
    return kMax ? hn::Max(a, b) : hn::Min(a, b);
  }
}

template <ReduceOp kOp, class D>
HWY_INLINE hn::Vec<D> Combine(D d, hn::Vec<D> a, hn::Vec<D> b) {
  if constexpr (kOp == ReduceOp::kProd) {
    return Multiply(d, a, b);
  } else if constexpr (kOp == ReduceOp::kMin) {
    return Extremum<false>(d, a, b);
  } else if constexpr (kOp == ReduceOp::kMax) {
    return Extremum<true>(d, a, b);
  } else {
    return hn::Add(a, b);
  }
}

// a / divisor; integers one lane at a time, since no instruction set here divides them.
template <class D>
HWY_INLINE hn::Vec<D> Divide(D d, hn::Vec<D> a, int64_t divisor) {
  using T = hn::TFromD<D>;
  if constexpr (std::is_floating_point_v<T>) {
    return hn::Div(a, hn::Set(d, static_cast<T>(divisor)));
  } else {
    HWY_ALIGN T lanes[hn::MaxLanes(d)];
    hn::Store(a, d, lanes);
    for (T& lane : lanes) lane = static_cast<T>(lane / divisor);
    return hn::Load(d, lanes);
  }
}

}  // namespace shardproof::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // SHARDPROOF_COLLECTIVES_KERNELS_FOLD_INL_H_
