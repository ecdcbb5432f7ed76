// The single-precision product that the others are made of, over strides.
#ifndef SHARDPROOF_LAYERS_KERNELS_GEMM_F32_H_
#define SHARDPROOF_LAYERS_KERNELS_GEMM_F32_H_

#include <cstdint>

#include "reference/status.h"

namespace shardproof::kernels {

// Element (i, j) is at data[i * row + j * column]; one of the strides is 1.
template <typename T>
struct Strided {
  T* data = nullptr;
  int64_t row = 0;
  int64_t column = 1;
};

// C = A B, or C += A B, or C = A B + bias. oneDNN, on the calling thread.
// m, n, k > 0.
Status GemmF32(int64_t m, int64_t n, int64_t k, Strided<const float> a,
               Strided<const float> b, Strided<float> c, bool accumulate,
               const float* bias);

}  // namespace shardproof::kernels

#endif  // SHARDPROOF_LAYERS_KERNELS_GEMM_F32_H_
