// Loads and stores of every element type as vectors of its accumulator type, for one instruction set.
//
//     Codec<BFloat16>::Load(d, p)     the elements at p as a Vec<decltype(d)> of float
//     Codec<BFloat16>::Store(v, d, p) rounded to nearest even, the same bits as BFloat16(float)
//
//     Codec<T>::LoadTwo(d, p, a, b)   2 Lanes(d) elements, in an order that T chooses: where kEvenOdd, those at even
//                                     places are in a and those at odd ones in b; else the first half is in a
//     Codec<T>::StoreTwo(a, b, d, p)  back to where they were
//     Codec<T>::StoreNext(a, b, d, p) all of a, and then all of b
//
// bf16 is the upper half of a float, so that two of them in a lane are apart by a shift and a mask, and no element has
// to cross lanes: fewer instructions than two calls of Load. The order is of no account where all operands have it.
//
// Included by .cc files that foreach_target.h compiles once per instruction set, hence the unusual include guard.
#include <cstdint>

#include "hwy/highway.h"
#include "reference/dtype.h"

#if defined(SHARDPROOF_COLLECTIVES_KERNELS_CODEC_INL_H_) == \
    defined(HWY_TARGET_TOGGLE)
#ifdef SHARDPROOF_COLLECTIVES_KERNELS_CODEC_INL_H_
#undef SHARDPROOF_COLLECTIVES_KERNELS_CODEC_INL_H_
#else
#define SHARDPROOF_COLLECTIVES_KERNELS_CODEC_INL_H_
#endif

HWY_BEFORE_NAMESPACE();
namespace shardproof::kernels::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

// Types that are their own accumulator.
template <typename T>
struct Codec {
  using Lane = T;
  static constexpr bool kNarrow = false;
  static constexpr bool kEvenOdd = false;

  template <class D>
  static HWY_INLINE hn::Vec<D> Load(D d, const T* HWY_RESTRICT p) {
    return hn::LoadU(d, p);
  }
  template <class D>
  static HWY_INLINE void Store(hn::Vec<D> v, D d, T* HWY_RESTRICT p) {
    hn::StoreU(v, d, p);
  }
  template <class D, class V = hn::Vec<D>>
  static HWY_INLINE void LoadTwo(D d, const T* HWY_RESTRICT p, V& a, V& b) {
    a = hn::LoadU(d, p);
    b = hn::LoadU(d, p + hn::Lanes(d));
  }
  template <class D, class V = hn::Vec<D>>
  static HWY_INLINE void StoreTwo(V a, V b, D d, T* HWY_RESTRICT p) {
    hn::StoreU(a, d, p);
    hn::StoreU(b, d, p + hn::Lanes(d));
  }
  template <class D, class V = hn::Vec<D>>
  static HWY_INLINE void StoreNext(V a, V b, D d, T* HWY_RESTRICT p) {
    StoreTwo(a, b, d, p);
  }
};

// Floating point of 8 and 16 bits, accumulated in f32. The steps are those of NarrowFormat in reference/dtype.h, where
// they are explained; the constants come from there, so that a format is described once.
template <typename Bits, int kExponentBits, int kMantissaBits, bool kInfinities>
struct Codec<NarrowFloat<Bits, kExponentBits, kMantissaBits, kInfinities>> {
  using T = NarrowFloat<Bits, kExponentBits, kMantissaBits, kInfinities>;
  using Format = typename T::Format;
  using Lane = float;
  static constexpr bool kNarrow = true;
  static constexpr int kDrop = 23 - kMantissaBits;
  // bf16: the bits are the upper half of a float's.
  static constexpr bool kUpperHalf = kExponentBits == 8 && kMantissaBits == 7;
  static constexpr bool kEvenOdd = kUpperHalf;

  template <class D>
  static HWY_INLINE hn::Vec<D> Load(D d, const T* HWY_RESTRICT p) {
    const hn::Rebind<Bits, D> narrow;
    const auto bits = hn::LoadU(narrow, reinterpret_cast<const Bits*>(p));
#if HWY_TARGET == HWY_AVX2 || HWY_TARGET == HWY_AVX3
    if constexpr (kExponentBits == 5 && kMantissaBits == 10) {
      return hn::PromoteTo(d,
                           hn::BitCast(hn::Rebind<hwy::float16_t, D>(), bits));
    }
#endif
    const hn::RebindToUnsigned<D> du;
    return Decode(d, hn::PromoteTo(du, bits));
  }

  template <class D>
  static HWY_INLINE void Store(hn::Vec<D> v, D d, T* HWY_RESTRICT p) {
    const hn::Rebind<Bits, D> narrow;
    Bits* bits = reinterpret_cast<Bits*>(p);
    if constexpr (kUpperHalf) {
      const auto upper = hn::ShiftRight<16>(QuietUpper(d, v, RoundUpper(d, v)));
      hn::StoreU(hn::TruncateTo(narrow, upper), narrow, bits);
      return;
    }
#if HWY_TARGET == HWY_AVX2 || HWY_TARGET == HWY_AVX3
    if constexpr (kExponentBits == 5 && kMantissaBits == 10) {
      // The instruction keeps the payload of a NaN; the contract is one NaN per sign.
      const hn::RebindToUnsigned<D> du;
      const auto sign = hn::And(hn::BitCast(du, v), hn::Set(du, 0x80000000u));
      const auto nan = hn::BitCast(d, hn::Or(sign, hn::Set(du, 0x7fc00000u)));
      const hn::Rebind<hwy::float16_t, D> half;
      hn::StoreU(
          hn::BitCast(narrow,
                      hn::DemoteTo(half, hn::IfThenElse(hn::IsNaN(v), nan, v))),
          narrow, bits);
      return;
    }
#endif
    const hn::RebindToSigned<D> di;
    hn::StoreU(hn::DemoteTo(narrow, hn::BitCast(di, Encode(d, v))), narrow,
               bits);
  }

  template <class D, class V = hn::Vec<D>>
  static HWY_INLINE void LoadTwo(D d, const T* HWY_RESTRICT p, V& a, V& b) {
    if constexpr (kUpperHalf) {
      const hn::RebindToUnsigned<D> du;
      const auto both = hn::LoadU(du, reinterpret_cast<const uint32_t*>(p));
      a = hn::BitCast(d, hn::ShiftLeft<16>(both));
      b = hn::BitCast(d, hn::And(both, hn::Set(du, 0xffff0000u)));
    } else {
      a = Load(d, p);
      b = Load(d, p + hn::Lanes(d));
    }
  }

  template <class D, class V = hn::Vec<D>>
  static HWY_INLINE void StoreTwo(V a, V b, D d, T* HWY_RESTRICT p) {
    if constexpr (kUpperHalf) {
      const hn::RebindToUnsigned<D> du;
      hn::Vec<decltype(du)> even, odd;
      BothUpper(d, a, b, even, odd);
      hn::StoreU(hn::Or(hn::And(odd, hn::Set(du, 0xffff0000u)),
                        hn::ShiftRight<16>(even)),
                 du, reinterpret_cast<uint32_t*>(p));
    } else {
      Store(a, d, p);
      Store(b, d, p + hn::Lanes(d));
    }
  }

  template <class D, class V = hn::Vec<D>>
  static HWY_INLINE void StoreNext(V a, V b, D d, T* HWY_RESTRICT p) {
#if HWY_TARGET != HWY_SCALAR
    if constexpr (kUpperHalf) {
      const hn::RebindToUnsigned<D> du;
      const hn::Repartition<Bits, D> dh;
      hn::Vec<decltype(du)> first, second;
      BothUpper(d, a, b, first, second);
      hn::StoreU(
          hn::ConcatOdd(dh, hn::BitCast(dh, second), hn::BitCast(dh, first)),
          dh, reinterpret_cast<Bits*>(p));
      return;
    }
#endif
    Store(a, d, p);
    Store(b, d, p + hn::Lanes(d));
  }

 private:
  // bf16 in the upper half of each lane, and anything below; not for NaN. Half a unit less one is added, and the parity
  // bit; a carry runs into the exponent, and beyond the largest number to infinity, as it should.
  template <class D>
  static HWY_INLINE hn::Vec<hn::RebindToUnsigned<D>> RoundUpper(D /*d*/,
                                                                hn::Vec<D> v) {
    const hn::RebindToUnsigned<D> du;
    const auto bits = hn::BitCast(du, v);
#if HWY_TARGET == HWY_AVX3
    return hn::IfThenElse(hn::TestBit(bits, hn::Set(du, 0x10000u)),
                          hn::Add(bits, hn::Set(du, 0x8000u)),
                          hn::Add(bits, hn::Set(du, 0x7fffu)));
#else
    const auto parity = hn::And(hn::ShiftRight<16>(bits), hn::Set(du, 1u));
    return hn::Add(hn::Add(bits, hn::Set(du, 0x7fffu)), parity);
#endif
  }

  // Both rounded, NaN or not, with one look for both: the sum of a NaN is one. Infinities may make one too, which costs
  // time only.
  template <class D, class V, class VU>
  static HWY_INLINE void BothUpper(D d, V a, V b, VU& upper_a, VU& upper_b) {
    upper_a = RoundUpper(d, a);
    upper_b = RoundUpper(d, b);
    if (HWY_UNLIKELY(!hn::AllFalse(d, hn::IsNaN(hn::Add(a, b))))) {
      upper_a = QuietUpper(d, a, upper_a);
      upper_b = QuietUpper(d, b, upper_b);
    }
  }

  // `rounded`, but the one NaN of v's sign where v is NaN.
  template <class D, class VU>
  static HWY_INLINE VU QuietUpper(D /*d*/, hn::Vec<D> v, VU rounded) {
    const hn::RebindToUnsigned<D> du;
    const auto sign = hn::And(hn::BitCast(du, v), hn::Set(du, 0x80000000u));
    return hn::IfThenElse(hn::RebindMask(du, hn::IsNaN(v)),
                          hn::Or(sign, hn::Set(du, 0x7fc00000u)), rounded);
  }

  template <class D, class VU>
  static HWY_INLINE hn::Vec<D> Decode(D d, VU bits) {
    const hn::RebindToUnsigned<D> du;
    if constexpr (kUpperHalf) return hn::BitCast(d, hn::ShiftLeft<16>(bits));
    const auto magnitude = hn::And(bits, hn::Set(du, Format::kSignBit - 1));
    const auto sign = hn::ShiftLeft<31 - kExponentBits - kMantissaBits>(
        hn::Xor(bits, magnitude));
    const auto shifted = hn::ShiftLeft<kDrop>(magnitude);
    if constexpr (Format::kBias == 127) {
      return hn::BitCast(d, hn::Or(shifted, sign));
    } else {
      const auto scale = hn::BitCast(
          d,
          hn::Set(du, static_cast<uint32_t>(127 + 127 - Format::kBias) << 23));
      auto wide = hn::BitCast(du, hn::Mul(hn::BitCast(d, shifted), scale));
      if constexpr (kInfinities) {
        const hn::RebindToSigned<D> di;
        const auto special =
            hn::Gt(hn::BitCast(di, magnitude),
                   hn::Set(di, static_cast<int32_t>(Format::kInfinity) - 1));
        wide = hn::IfThenElse(hn::RebindMask(du, special),
                              hn::Or(shifted, hn::Set(du, 0x7f800000u)), wide);
      } else {
        wide = hn::IfThenElse(hn::Eq(magnitude, hn::Set(du, Format::kNan)),
                              hn::Set(du, 0x7fc00000u), wide);
      }
      return hn::BitCast(d, hn::Or(wide, sign));
    }
  }

  // The encoded bits, in the low part of each 32-bit lane. All comparisons are of values below 2^31, so signed
  // ones serve: SSE and AVX2 have no others.
  template <class D>
  static HWY_INLINE hn::Vec<hn::RebindToUnsigned<D>> Encode(D d, hn::Vec<D> v) {
    const hn::RebindToUnsigned<D> du;
    const hn::RebindToSigned<D> di;
    const auto bits = hn::BitCast(du, v);
    const auto magnitude = hn::And(bits, hn::Set(du, 0x7fffffffu));
    const auto signed_magnitude = hn::BitCast(di, magnitude);
    const auto sign =
        hn::ShiftLeft<kExponentBits + kMantissaBits>(hn::ShiftRight<31>(bits));
    const auto parity =
        hn::And(hn::ShiftRight<kDrop>(magnitude), hn::Set(du, 1u));
    const auto half = hn::Set(du, (1u << (kDrop - 1)) - 1);
    const auto rounded =
        hn::ShiftRight<kDrop>(hn::Add(hn::Add(magnitude, half), parity));
    auto result =
        hn::Sub(rounded, hn::Set(du, static_cast<uint32_t>(127 - Format::kBias)
                                         << kMantissaBits));
    if constexpr (Format::kBias < 127) {
      constexpr uint32_t kMagic =
          static_cast<uint32_t>(127 + 1 - Format::kBias - kMantissaBits + 23)
          << 23;
      constexpr int32_t kSmallestNormal = (127 + 1 - Format::kBias) << 23;
      const auto magic = hn::Set(du, kMagic);
      const auto shifted =
          hn::Add(hn::BitCast(d, magnitude), hn::BitCast(d, magic));
      const auto subnormal = hn::Sub(hn::BitCast(du, shifted), magic);
      const auto small = hn::Lt(signed_magnitude, hn::Set(di, kSmallestNormal));
      result = hn::IfThenElse(hn::RebindMask(du, small), subnormal, result);
    }
    // A tiny input has left `result` non-negative by now, so overflow is what compares greater.
    const auto overflow = hn::Set(du, Format::kOverflow);
    result = hn::BitCast(
        du, hn::Min(hn::BitCast(di, result), hn::BitCast(di, overflow)));
    const auto nan = hn::Gt(signed_magnitude, hn::Set(di, 0x7f800000));
    result = hn::IfThenElse(hn::RebindMask(du, nan), hn::Set(du, Format::kNan),
                            result);
    return hn::Or(result, sign);
  }
};

}  // namespace shardproof::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // SHARDPROOF_COLLECTIVES_KERNELS_CODEC_INL_H_
