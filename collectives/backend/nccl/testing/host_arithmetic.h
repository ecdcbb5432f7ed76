// The arithmetic of the library for tests, on whole blocks of one type.
#ifndef SHARDPROOF_COLLECTIVES_BACKEND_NCCL_TESTING_HOST_ARITHMETIC_H_
#define SHARDPROOF_COLLECTIVES_BACKEND_NCCL_TESTING_HOST_ARITHMETIC_H_

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <type_traits>
#include <utility>
#include <vector>

#include "collectives/backend/nccl/nccl_abi.h"
#include "reference/dtype.h"

namespace shardproof::nccl {

using Bytes = std::vector<std::byte>;

// False for what the claimed version does not know.
inline bool ToDType(DataType type, DType& out) {
  static constexpr std::array<std::pair<DataType, DType>, 10> kTypes = {{
      {DataType::kInt8, DType::kI8},
      {DataType::kUint8, DType::kU8},
      {DataType::kInt32, DType::kI32},
      {DataType::kInt64, DType::kI64},
      {DataType::kFloat16, DType::kF16},
      {DataType::kFloat32, DType::kF32},
      {DataType::kFloat64, DType::kF64},
      {DataType::kBfloat16, DType::kBF16},
      {DataType::kFloat8E4M3, DType::kE4M3},
      {DataType::kFloat8E5M2, DType::kE5M2},
  }};
  for (const auto& [theirs, ours] : kTypes) {
    if (theirs != type) continue;
    out = ours;
    const bool is_fp8 = ours == DType::kE4M3 || ours == DType::kE5M2;
    return !is_fp8 || HOST_NCCL_VERSION >= 22400;
  }
  return false;
}

// Integers wrap; other types are added in double, which the tests' small
// integers never leave.
template <class T>
T Combine(RedOp op, T a, T b) {
  if constexpr (std::is_integral_v<T>) {
    // Modulo 2^64, whatever the sign; the result modulo the type's width.
    const auto x = static_cast<uint64_t>(int64_t{a});
    const auto y = static_cast<uint64_t>(int64_t{b});
    if (op == RedOp::kProd) return static_cast<T>(x * y);
    if (op == RedOp::kMax) return std::max(a, b);
    if (op == RedOp::kMin) return std::min(a, b);
    return static_cast<T>(x + y);
  } else {
    const auto x = static_cast<double>(a);
    const auto y = static_cast<double>(b);
    if (op == RedOp::kProd) return static_cast<T>(x * y);
    if (op == RedOp::kMax) return static_cast<T>(std::max(x, y));
    if (op == RedOp::kMin) return static_cast<T>(std::min(x, y));
    return static_cast<T>(x + y);
  }
}

template <class T>
T Divide(T a, int by) {
  if constexpr (std::is_integral_v<T>) {
    return static_cast<T>(a / by);
  } else {
    return static_cast<T>(static_cast<double>(a) / by);
  }
}

inline void Fold(RedOp op, DType dtype, const Bytes& from, Bytes& into) {
  Visit(dtype, [&]<class T>(TypeTag<T>) {
    for (size_t i = 0; i < into.size(); i += sizeof(T)) {
      T a, b;
      std::memcpy(&a, &into[i], sizeof(T));
      std::memcpy(&b, &from[i], sizeof(T));
      a = Combine(op, a, b);
      std::memcpy(&into[i], &a, sizeof(T));
    }
  });
}

inline void Average(DType dtype, int ranks, Bytes& data) {
  Visit(dtype, [&]<class T>(TypeTag<T>) {
    for (size_t i = 0; i < data.size(); i += sizeof(T)) {
      T a;
      std::memcpy(&a, &data[i], sizeof(T));
      a = Divide(a, ranks);
      std::memcpy(&data[i], &a, sizeof(T));
    }
  });
}

inline void Scale(DType dtype, const std::array<std::byte, 8>& factor,
                  Bytes& data) {
  Visit(dtype, [&]<class T>(TypeTag<T>) {
    T f, a;
    std::memcpy(&f, factor.data(), sizeof(T));
    for (size_t i = 0; i < data.size(); i += sizeof(T)) {
      std::memcpy(&a, &data[i], sizeof(T));
      a = Combine(RedOp::kProd, a, f);
      std::memcpy(&data[i], &a, sizeof(T));
    }
  });
}

}  // namespace shardproof::nccl

#endif  // SHARDPROOF_COLLECTIVES_BACKEND_NCCL_TESTING_HOST_ARITHMETIC_H_
