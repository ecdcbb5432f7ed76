// What of cublaslt_abi.h is not as the toolkit's cublasLt.h says.
#ifndef SHARDPROOF_LAYERS_KERNELS_CUDA_BLAS_CUBLASLT_HEADER_H_
#define SHARDPROOF_LAYERS_KERNELS_CUDA_BLAS_CUBLASLT_HEADER_H_

#include "collectives/backend/cuda/library/header_comparison.h"

namespace shardproof::cublaslt {

HeaderComparison CompareWithHeader();

}  // namespace shardproof::cublaslt

#endif  // SHARDPROOF_LAYERS_KERNELS_CUDA_BLAS_CUBLASLT_HEADER_H_
