#include "reference/dtype.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <string>

#include "reference/clones.h"

namespace shardproof {
namespace {

struct Alias {
  std::string_view name;
  DType dtype;
};

constexpr Alias kAliases[] = {
    {"float64", DType::kF64},
    {"double", DType::kF64},
    {"float32", DType::kF32},
    {"float", DType::kF32},
    {"bfloat16", DType::kBF16},
    {"float16", DType::kF16},
    {"half", DType::kF16},
    {"fp8_e4m3", DType::kE4M3},
    {"float8_e4m3fn", DType::kE4M3},
    {"fp8_e5m2", DType::kE5M2},
    {"float8_e5m2", DType::kE5M2},
    {"int8", DType::kI8},
    {"uint8", DType::kU8},
    {"int32", DType::kI32},
    {"int", DType::kI32},
    {"int64", DType::kI64},
};

template <typename T>
T FromOne(double value) {
  if constexpr (std::is_integral_v<T>) {
    if (!(std::abs(value) < 0x1p63)) return 0;
    return static_cast<T>(static_cast<int64_t>(std::nearbyint(value)));
  } else {
    return static_cast<T>(value);
  }
}

template <typename T>
[[gnu::always_inline]] inline void ToDoubleLoop(const T* __restrict src,
                                                int64_t n,
                                                double* __restrict dst) {
  for (int64_t i = 0; i < n; ++i) dst[i] = static_cast<double>(src[i]);
}

template <typename T>
[[gnu::always_inline]] inline void FromDoubleLoop(const double* __restrict src,
                                                  int64_t n,
                                                  T* __restrict dst) {
  for (int64_t i = 0; i < n; ++i) dst[i] = FromOne<T>(src[i]);
}

template <typename T>
[[gnu::always_inline]] inline void RoundLoop(double* values, int64_t n) {
  for (int64_t i = 0; i < n; ++i) {
    values[i] = static_cast<double>(FromOne<T>(values[i]));
  }
}

// target_clones does not apply to templates, so each type has its functions.
#define SP_CONVERSIONS(T)                                                     \
  SHARDPROOF_CLONES void ToDoubleOf(const T* src, int64_t n, double* dst) {   \
    ToDoubleLoop(src, n, dst);                                                \
  }                                                                           \
  SHARDPROOF_CLONES void FromDoubleOf(const double* src, int64_t n, T* dst) { \
    FromDoubleLoop(src, n, dst);                                              \
  }                                                                           \
  SHARDPROOF_CLONES void RoundOf(TypeTag<T>, double* values, int64_t n) {     \
    RoundLoop<T>(values, n);                                                  \
  }
SP_CONVERSIONS(double)
SP_CONVERSIONS(float)
SP_CONVERSIONS(BFloat16)
SP_CONVERSIONS(Float16)
SP_CONVERSIONS(Float8E4M3)
SP_CONVERSIONS(Float8E5M2)
SP_CONVERSIONS(int8_t)
SP_CONVERSIONS(uint8_t)
SP_CONVERSIONS(int32_t)
SP_CONVERSIONS(int64_t)
#undef SP_CONVERSIONS

}  // namespace

StatusOr<DType> ParseDType(std::string_view name) {
  for (DType dtype : kAllDTypes) {
    if (Name(dtype) == name) return dtype;
  }
  for (const Alias& alias : kAliases) {
    if (alias.name == name) return alias.dtype;
  }
  std::string known;
  for (DType dtype : kAllDTypes) {
    known += known.empty() ? "" : ", ";
    known += Name(dtype);
  }
  return InvalidArgument("unknown type '{}'; known: {}", name, known);
}

void ToDouble(DType dtype, const void* src, int64_t n, double* dst) {
  Visit(dtype, [&]<typename T>(TypeTag<T>) {
    ToDoubleOf(static_cast<const T*>(src), n, dst);
  });
}

void FromDouble(DType dtype, const double* src, int64_t n, void* dst) {
  Visit(dtype, [&]<typename T>(TypeTag<T>) {
    FromDoubleOf(src, n, static_cast<T*>(dst));
  });
}

double Round(DType dtype, double value) {
  return Visit(dtype, [&]<typename T>(TypeTag<T>) {
    return static_cast<double>(FromOne<T>(value));
  });
}

void RoundAll(DType dtype, double* values, int64_t n) {
  if (dtype == DType::kF64) return;
  Visit(dtype, [&]<typename T>(TypeTag<T> tag) { RoundOf(tag, values, n); });
}

}  // namespace shardproof
