// The element types under test, their storage structs and exact conversions.
//
// Contract: every conversion to a narrower type is a single rounding to
// nearest, ties to even, of the exact value given, from float and double alike:
//
//   Round(T, x) = argmin over y in T of |x - y|, the even one of two
//
// Subnormals are kept. NaN stays NaN, -0 stays -0.
//
// Overflow: bf16, f16 and e5m2 give infinity. e4m3 is the OCP "fn" form without
// infinities: overflow gives NaN, as PyTorch's and ml_dtypes' casts do. (The
// constructors of CUDA's __nv_fp8_e4m3 saturate at 448 instead.) NaN was chosen
// because it cannot be missed.
//
// Integers: nearest, ties to even, then modulo 2^width; NaN gives 0.
//
//   float wide = static_cast<float>(BFloat16(1.0f / 3));
//   Visit(dtype, [&]<typename T>(TypeTag<T>) {
//     AddAll(static_cast<const T*>(a), static_cast<T*>(b), n);
//   });

#ifndef SHARDPROOF_REFERENCE_DTYPE_H_
#define SHARDPROOF_REFERENCE_DTYPE_H_

#include <bit>
#include <concepts>
#include <cstdint>
#include <cstdlib>
#include <string_view>
#include <type_traits>

#include "reference/status.h"

namespace shardproof {

enum class DType : uint8_t {
  kF64,
  kF32,
  kBF16,
  kF16,
  kE4M3,
  kE5M2,
  kI8,
  kU8,
  kI32,
  kI64
};

inline constexpr DType kAllDTypes[] = {
    DType::kF64,  DType::kF32, DType::kBF16, DType::kF16, DType::kE4M3,
    DType::kE5M2, DType::kI8,  DType::kU8,   DType::kI32, DType::kI64};

namespace internal {

// A narrow binary format: 1 sign bit, kExponentBits, kMantissaBits. kInfinities
// = false is the OCP "fn" form.
template <int kExponentBits, int kMantissaBits, bool kInfinities>
struct NarrowFormat {
  static constexpr int kBias = (1 << (kExponentBits - 1)) - 1;
  static constexpr uint32_t kMaxExponentField = (1u << kExponentBits) - 1;
  static constexpr uint32_t kSignBit = 1u << (kExponentBits + kMantissaBits);
  static constexpr uint32_t kInfinity = kMaxExponentField << kMantissaBits;
  static constexpr uint32_t kNan =
      kInfinities ? kInfinity | (1u << (kMantissaBits - 1)) : kSignBit - 1;
  static constexpr uint32_t kOverflow = kInfinities ? kInfinity : kNan;

  // Straight-line, so that loops over it vectorise.
  static constexpr uint32_t Encode(float value) {
    constexpr int kDrop = 23 - kMantissaBits;
    const uint32_t bits = std::bit_cast<uint32_t>(value);
    const uint32_t magnitude = bits & 0x7fffffffu;
    const uint32_t sign = (bits >> 31) * kSignBit;
    // Normal results: add half a unit less one, and the parity bit, then cut. A
    // carry runs into the exponent, as it should.
    const uint32_t rebias = static_cast<uint32_t>(127 - kBias) << kMantissaBits;
    const uint32_t rounded =
        (magnitude + ((1u << (kDrop - 1)) - 1) + ((magnitude >> kDrop) & 1)) >>
        kDrop;
    uint32_t result = rounded - rebias;
    if constexpr (kBias < 127) {
      // Subnormal results: adding a power of two whose unit in the last place
      // is the smallest subnormal makes the adder round.
      constexpr uint32_t kMagic =
          static_cast<uint32_t>(127 + 1 - kBias - kMantissaBits + 23) << 23;
      constexpr uint32_t kSmallestNormal =
          static_cast<uint32_t>(127 + 1 - kBias) << 23;
      const float shifted =
          std::bit_cast<float>(magnitude) + std::bit_cast<float>(kMagic);
      const uint32_t subnormal = std::bit_cast<uint32_t>(shifted) - kMagic;
      result = magnitude < kSmallestNormal ? subnormal : result;
    }
    result = result >= kOverflow ? kOverflow : result;
    result = magnitude > 0x7f800000u ? kNan : result;
    return result | sign;
  }

  static constexpr float Decode(uint32_t bits) {
    const uint32_t magnitude = bits & (kSignBit - 1);
    const uint32_t sign = (bits & kSignBit) ? 0x80000000u : 0u;
    uint32_t wide;
    if constexpr (kBias == 127) {
      wide = magnitude << (23 - kMantissaBits);
    } else {
      // Read the bits with float's bias, then scale: subnormals come out
      // normalised. The scaling is exact.
      constexpr uint32_t kScale = static_cast<uint32_t>(127 + 127 - kBias)
                                  << 23;
      const float scaled =
          std::bit_cast<float>(magnitude << (23 - kMantissaBits)) *
          std::bit_cast<float>(kScale);
      wide = std::bit_cast<uint32_t>(scaled);
      if constexpr (kInfinities) {
        const uint32_t special =
            0x7f800000u | (magnitude << (23 - kMantissaBits));
        wide = magnitude >= kInfinity ? special : wide;
      } else {
        wide = magnitude == kNan ? 0x7fc00000u : wide;
      }
    }
    return std::bit_cast<float>(wide | sign);
  }
};

// Double to float rounded to odd: rounding that again to at least two bits
// fewer equals one rounding of the double (Boldo and Melquiond, 2008).
constexpr float RoundToOdd(double value) {
  const float nearest = static_cast<float>(value);
  uint32_t bits = std::bit_cast<uint32_t>(nearest);
  const double back = static_cast<double>(nearest);
  const double magnitude = value < 0 ? -value : value;
  const double back_magnitude = back < 0 ? -back : back;
  bits -= back_magnitude > magnitude
              ? 1
              : 0;  // towards zero; infinity becomes the largest float
  bits |= back_magnitude != magnitude && value == value ? 1 : 0;
  return std::bit_cast<float>(bits);
}

}  // namespace internal

// A floating-point number of Bits storage. Trivial, so arrays of it may live in
// any buffer.
template <typename Bits, int kExponentBits, int kMantissaBits, bool kInfinities>
struct NarrowFloat {
  using Format =
      internal::NarrowFormat<kExponentBits, kMantissaBits, kInfinities>;

  Bits bits;

  NarrowFloat() = default;
  constexpr explicit NarrowFloat(float value)
      : bits(static_cast<Bits>(Format::Encode(value))) {}
  constexpr explicit NarrowFloat(double value)
      : bits(static_cast<Bits>(Format::Encode(internal::RoundToOdd(value)))) {}
  template <std::integral I>  // |value| <= 2^53
  constexpr explicit NarrowFloat(I value)
      : NarrowFloat(static_cast<double>(value)) {}

  static constexpr NarrowFloat FromBits(Bits b) {
    NarrowFloat result(0.0f);
    result.bits = b;
    return result;
  }
  constexpr explicit operator float() const { return Format::Decode(bits); }
  constexpr explicit operator double() const {
    return static_cast<double>(Format::Decode(bits));
  }
};

using BFloat16 = NarrowFloat<uint16_t, 8, 7, true>;
using Float16 = NarrowFloat<uint16_t, 5, 10, true>;
using Float8E4M3 = NarrowFloat<uint8_t, 4, 3, false>;
using Float8E5M2 = NarrowFloat<uint8_t, 5, 2, true>;

static_assert(std::is_trivial_v<BFloat16> && sizeof(BFloat16) == 2 &&
              sizeof(Float8E4M3) == 1);

// One row per type.
struct DTypeInfo {
  DType dtype;
  std::string_view name;
  int size;  // bytes
  bool is_float;
  int significand_bits;  // t, with the implicit bit; value bits of an integer
  double smallest_subnormal;  // 0 for integers
  double max_finite;          // i64: 2^63, rounded up from 2^63 - 1
  DType accumulator;          // see Accumulator()
};

inline constexpr DTypeInfo kDTypeInfo[] = {
    {DType::kF64, "f64", 8, true, 53, 0x1p-1074, 0x1.fffffffffffffp1023,
     DType::kF64},
    {DType::kF32, "f32", 4, true, 24, 0x1p-149, 0x1.fffffep127, DType::kF32},
    {DType::kBF16, "bf16", 2, true, 8, 0x1p-133, 0x1.fep127, DType::kF32},
    {DType::kF16, "f16", 2, true, 11, 0x1p-24, 65504, DType::kF32},
    {DType::kE4M3, "e4m3", 1, true, 4, 0x1p-9, 448, DType::kF32},
    {DType::kE5M2, "e5m2", 1, true, 3, 0x1p-16, 57344, DType::kF32},
    {DType::kI8, "i8", 1, false, 7, 0, 127, DType::kI8},
    {DType::kU8, "u8", 1, false, 8, 0, 255, DType::kU8},
    {DType::kI32, "i32", 4, false, 31, 0, 2147483647.0, DType::kI32},
    {DType::kI64, "i64", 8, false, 63, 0, 0x1p63, DType::kI64},
};

constexpr const DTypeInfo& Info(DType dtype) {
  return kDTypeInfo[static_cast<int>(dtype)];
}
constexpr int SizeOf(DType dtype) { return Info(dtype).size; }
constexpr std::string_view Name(DType dtype) { return Info(dtype).name; }
constexpr bool IsFloat(DType dtype) { return Info(dtype).is_float; }
constexpr bool IsInteger(DType dtype) { return !Info(dtype).is_float; }
// t: integers up to 2^t in magnitude are exact.
constexpr int SignificandBits(DType dtype) {
  return Info(dtype).significand_bits;
}
// u = 2^-t: |Round(x) - x| <= u |x| in the normal range. 0 for integers.
constexpr double UnitRoundoff(DType dtype) {
  return IsFloat(dtype)
             ? 1.0 / static_cast<double>(uint64_t{1} << SignificandBits(dtype))
             : 0.0;
}
constexpr double SmallestSubnormal(DType dtype) {
  return Info(dtype).smallest_subnormal;
}
constexpr double MaxFinite(DType dtype) { return Info(dtype).max_finite; }
// The type in which a reduction adds: f32 for f32 and everything narrower, f64
// for f64. Integers add in their own type modulo 2^width, as MPI and NCCL do; a
// wider accumulator that is cut at the end gives the same bits.
constexpr DType Accumulator(DType dtype) { return Info(dtype).accumulator; }

// "f32" -> kF32. The error lists the known names. Also accepts float32,
// bfloat16, half, fp8_e4m3, int8, ... (NCCL's and PyTorch's names).
StatusOr<DType> ParseDType(std::string_view name);

template <typename T>
struct TypeTag {
  using type = T;
};

// Calls f(TypeTag<T>{}) with the storage type of `dtype` and returns its
// result.
template <typename F>
constexpr auto Visit(DType dtype, F&& f) {
  switch (dtype) {
    case DType::kF64:
      return f(TypeTag<double>{});
    case DType::kF32:
      return f(TypeTag<float>{});
    case DType::kBF16:
      return f(TypeTag<BFloat16>{});
    case DType::kF16:
      return f(TypeTag<Float16>{});
    case DType::kE4M3:
      return f(TypeTag<Float8E4M3>{});
    case DType::kE5M2:
      return f(TypeTag<Float8E5M2>{});
    case DType::kI8:
      return f(TypeTag<int8_t>{});
    case DType::kU8:
      return f(TypeTag<uint8_t>{});
    case DType::kI32:
      return f(TypeTag<int32_t>{});
    case DType::kI64:
      return f(TypeTag<int64_t>{});
  }
  std::abort();  // not a DType: memory is damaged
}

// The DType whose storage type is T.
template <typename T>
constexpr DType DTypeOf() {
  if constexpr (std::is_same_v<T, double>) return DType::kF64;
  if constexpr (std::is_same_v<T, float>) return DType::kF32;
  if constexpr (std::is_same_v<T, BFloat16>) return DType::kBF16;
  if constexpr (std::is_same_v<T, Float16>) return DType::kF16;
  if constexpr (std::is_same_v<T, Float8E4M3>) return DType::kE4M3;
  if constexpr (std::is_same_v<T, Float8E5M2>) return DType::kE5M2;
  if constexpr (std::is_same_v<T, int8_t>) return DType::kI8;
  if constexpr (std::is_same_v<T, uint8_t>) return DType::kU8;
  if constexpr (std::is_same_v<T, int32_t>) return DType::kI32;
  if constexpr (std::is_same_v<T, int64_t>) return DType::kI64;
}

// Converts n elements; exact (an i64 beyond 2^53 is rounded). Vectorised. src
// and dst must not overlap.
void ToDouble(DType dtype, const void* src, int64_t n, double* dst);
// Converts n elements by the rounding above.
void FromDouble(DType dtype, const double* src, int64_t n, void* dst);
// The nearest value of `dtype`, as a double.
double Round(DType dtype, double value);
// In place over n values.
void RoundAll(DType dtype, double* values, int64_t n);

}  // namespace shardproof

#endif  // SHARDPROOF_REFERENCE_DTYPE_H_
