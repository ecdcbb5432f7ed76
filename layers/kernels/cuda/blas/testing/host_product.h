// The arithmetic of the library for tests: D = epilogue(alpha op(A) op(B) + beta C), column-major, by three loops.
#ifndef SHARDPROOF_LAYERS_KERNELS_CUDA_BLAS_TESTING_HOST_PRODUCT_H_
#define SHARDPROOF_LAYERS_KERNELS_CUDA_BLAS_TESTING_HOST_PRODUCT_H_

#include <cmath>
#include <cstdint>
#include <cstring>
#include <type_traits>
#include <vector>

#include "layers/kernels/cuda/blas/cublaslt_abi.h"
#include "reference/dtype.h"

namespace shardproof::cublaslt {

struct HostDesc {
  ComputeType compute = ComputeType::k32F;
  DataType scale = DataType::kFloat32;
  int32_t transpose_a = 0, transpose_b = 0;
  uint32_t epilogue = static_cast<uint32_t>(Epilogue::kDefault);
  void* bias = nullptr;
  void* aux = nullptr;
  int64_t aux_leading_dimension = 0;
};

struct HostLayout {
  DataType type = DataType::kFloat32;
  int64_t rows = 0, columns = 0, leading_dimension = 0;
};

struct HostProduct {
  HostDesc desc;
  HostLayout a_layout, b_layout, c_layout, d_layout;
  double alpha = 1, beta = 0;
  const void* a = nullptr;
  const void* b = nullptr;
  const void* c = nullptr;
  void* d = nullptr;
};

inline double HostGelu(double x) {
  const double t = std::tanh(std::sqrt(2 / M_PI) * (x + 0.044715 * x * x * x));
  return 0.5 * x * (1 + t);
}
inline double HostGeluGradient(double x) {
  const double c = std::sqrt(2 / M_PI);
  const double t = std::tanh(c * (x + 0.044715 * x * x * x));
  return 0.5 * (1 + t) + 0.5 * x * (1 - t * t) * c * (1 + 3 * 0.044715 * x * x);
}

// What TF32 keeps of a number.
inline double ToTf32(double x) {
  const auto narrow = static_cast<float>(x);
  uint32_t bits = 0;
  std::memcpy(&bits, &narrow, sizeof(bits));
  bits &= 0xffffe000U;
  float kept = 0;
  std::memcpy(&kept, &bits, sizeof(kept));
  return kept;
}

template <class T>
void Multiply(const HostProduct& p) {
  using Sum = std::conditional_t<std::is_same_v<T, double>, double, float>;
  const auto* const a = static_cast<const T*>(p.a);
  const auto* const b = static_cast<const T*>(p.b);
  const auto* const c = static_cast<const T*>(p.c);
  auto* const d = static_cast<T*>(p.d);
  auto* const bias = static_cast<T*>(p.desc.bias);
  auto* const aux = static_cast<T*>(p.desc.aux);
  const auto epilogue = static_cast<Epilogue>(p.desc.epilogue);
  const bool tf32 = p.desc.compute == ComputeType::k32FFastTf32;
  const auto at = [tf32](const T* data, const HostLayout& layout,
                         int32_t transposed, int64_t row, int64_t column) {
    const int64_t place = transposed != 0
                              ? column + row * layout.leading_dimension
                              : row + column * layout.leading_dimension;
    const auto value = static_cast<Sum>(data[place]);
    return tf32 ? static_cast<Sum>(ToTf32(static_cast<double>(value))) : value;
  };
  const int64_t depth =
      p.desc.transpose_a != 0 ? p.a_layout.rows : p.a_layout.columns;
  std::vector<double> gradients(static_cast<size_t>(p.d_layout.rows), 0.0);
  for (int64_t j = 0; j < p.d_layout.columns; ++j) {
    for (int64_t i = 0; i < p.d_layout.rows; ++i) {
      Sum sum = 0;
      for (int64_t l = 0; l < depth; ++l) {
        sum += at(a, p.a_layout, p.desc.transpose_a, i, l) *
               at(b, p.b_layout, p.desc.transpose_b, l, j);
      }
      double value = p.alpha * static_cast<double>(sum);
      if (p.beta != 0) {
        value += p.beta *
                 static_cast<double>(c[i + j * p.c_layout.leading_dimension]);
      }
      const int64_t kept = i + j * p.desc.aux_leading_dimension;
      if (epilogue == Epilogue::kBias || epilogue == Epilogue::kGeluAuxBias) {
        value += static_cast<double>(bias[i]);
      }
      if (epilogue == Epilogue::kGeluAuxBias) {
        aux[kept] = static_cast<T>(value);
        value = HostGelu(value);
      }
      if (epilogue == Epilogue::kDGeluBiasGradient) {
        value *= HostGeluGradient(static_cast<double>(aux[kept]));
        gradients[static_cast<size_t>(i)] += value;
      }
      d[i + j * p.d_layout.leading_dimension] = static_cast<T>(value);
    }
  }
  if (epilogue != Epilogue::kDGeluBiasGradient) return;
  for (size_t i = 0; i < gradients.size(); ++i) {
    bias[i] = static_cast<T>(gradients[i]);
  }
}

}  // namespace shardproof::cublaslt

#endif  // SHARDPROOF_LAYERS_KERNELS_CUDA_BLAS_TESTING_HOST_PRODUCT_H_
