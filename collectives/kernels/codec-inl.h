// Loads and stores of every element type as vectors of its accumulator type, for one instruction set.
//
//     Codec<BFloat16>::Load(d, p)     the elements at p as a Vec<decltype(d)> of float
//     Codec<BFloat16>::Store(v, d, p) rounded to nearest even, the same bits as BFloat16(float)
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

  template <class D>
  static HWY_INLINE hn::Vec<D> Load(D d, const T* HWY_RESTRICT p) {
    return hn::LoadU(d, p);
  }
  template <class D>
  static HWY_INLINE void Store(hn::Vec<D> v, D d, T* HWY_RESTRICT p) {
    hn::StoreU(v, d, p);
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

 private:
  template <class D, class VU>
  static HWY_INLINE hn::Vec<D> Decode(D d, VU bits) {
    const hn::RebindToUnsigned<D> du;
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
