// exp of numbers that are not positive, for one instruction set: what is left of
// an exponential once the largest has been subtracted.
//
//     ExpOfNegative(d, x) = e^x    x <= 0, or a NaN, which stays one
//
// In f32 the result is 0 where e^x is less than the smallest normal number; that,
// and that there is no larger exponent to scale by, saves half of the
// instructions of hn::Exp, which f64 is left to. x = k log 2 + r,
// |r| <= log(2) / 2: adding 2^23 and more rounds x / log 2 to k, and its low bits
// are k then (Cody and Waite, Software Manual for the Elementary Functions,
// chapter 6, for the reduction in two steps).
#include <array>
#include <cstddef>

#include "collectives/kernels/targets.h"
#include "hwy/highway.h"

#if defined(SHARDPROOF_LAYERS_KERNELS_EXP_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef SHARDPROOF_LAYERS_KERNELS_EXP_INL_H_
#undef SHARDPROOF_LAYERS_KERNELS_EXP_INL_H_
#else
#define SHARDPROOF_LAYERS_KERNELS_EXP_INL_H_
#endif

#include "hwy/contrib/math/math-inl.h"

HWY_BEFORE_NAMESPACE();
namespace shardproof::kernels::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

// In place, of kVectors at a time, a step of all of them after the other.
template <class D, class V, size_t kVectors>
HWY_INLINE void ExpOfNegative(D d, std::array<V, kVectors>& x) {
  if constexpr (sizeof(hn::TFromD<D>) == sizeof(double)) {
    // hn::Exp makes a number of a NaN.
    for (V& v : x) v = hn::IfThenElse(hn::IsNaN(v), v, hn::Exp(d, v));
  } else {
    const auto set = [d](float v) { return hn::Set(d, v); };
    const hn::RebindToUnsigned<D> du;
    // 1.5 * 2^23, and the bias of the exponent.
    const V magic = set(12582912.0F + 127.0F);
    std::array<V, kVectors> scale, r, p;
    const auto each = [](auto step) {
      for (size_t i = 0; i < kVectors; ++i) step(i);
    };
    const auto horner = [&](float c) {
      each([&](size_t i) { p[i] = hn::MulAdd(p[i], r[i], set(c)); });
    };
    each([&](size_t i) {
      scale[i] = hn::MulAdd(x[i], set(0x1.715476p+0F), magic);
    });
    each([&](size_t i) { p[i] = hn::Sub(scale[i], magic); });  // k
    each([&](size_t i) {
      r[i] = hn::NegMulAdd(p[i], set(0.693145751953125F), x[i]);
    });
    each([&](size_t i) {
      r[i] = hn::NegMulAdd(p[i], set(1.428606765330187045e-6F), r[i]);
    });
    // 1 + r + r^2 p(r) with the p of degree 4 whose largest relative error is
    // least (Remez): 0.05 units of roundoff.
    each([&](size_t i) { p[i] = set(0x1.6a23d0p-10F); });
    horner(0x1.123a20p-7F);
    horner(0x1.5558f2p-5F);
    horner(0x1.555492p-3F);
    horner(0x1.fffffcp-2F);
    horner(1.0F);
    horner(1.0F);
    each([&](size_t i) {
      const auto power = hn::ShiftLeft<23>(hn::BitCast(du, scale[i]));
      // log(2^-126); a NaN is not less.
      const auto tiny = hn::Lt(x[i], set(-0x1.5d589ep+6F));
      x[i] = hn::IfThenZeroElse(tiny, hn::Mul(p[i], hn::BitCast(d, power)));
    });
  }
}

template <class D, class V = hn::Vec<D>>
HWY_INLINE V ExpOfNegative(D d, V x) {
  std::array<V, 1> one = {x};
  ExpOfNegative(d, one);
  return one[0];
}

}  // namespace shardproof::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // include guard
