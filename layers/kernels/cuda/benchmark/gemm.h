// Products of a library as points: the ceiling of all products, and those of a model.
#ifndef SHARDPROOF_LAYERS_KERNELS_CUDA_BENCHMARK_GEMM_H_
#define SHARDPROOF_LAYERS_KERNELS_CUDA_BENCHMARK_GEMM_H_

#include <cstdint>

#include "layers/kernels/cuda/benchmark/point.h"
#include "reference/dtype.h"

namespace shardproof::cuda {

struct ProductShape {
  int64_t m = 0, n = 0, k = 0;
};

// C[m, n] = A[m, k] B[n, k]^T of random numbers: "gemm", without an epilogue.
KernelPoint ProductPoint(DType dtype, const ProductShape& shape);

}  // namespace shardproof::cuda

#endif  // SHARDPROOF_LAYERS_KERNELS_CUDA_BENCHMARK_GEMM_H_
