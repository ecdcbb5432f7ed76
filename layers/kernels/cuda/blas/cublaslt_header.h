// What of cublaslt_abi.h is not as the toolkit's cublasLt.h says.
#ifndef SHARDPROOF_LAYERS_KERNELS_CUDA_BLAS_CUBLASLT_HEADER_H_
#define SHARDPROOF_LAYERS_KERNELS_CUDA_BLAS_CUBLASLT_HEADER_H_

#include <string>
#include <vector>

namespace shardproof::cublaslt {

struct HeaderComparison {
  int compared = 0;  // 0: the toolkit has no cublasLt.h.
  std::vector<std::string> differences;
};

HeaderComparison CompareWithHeader();

}  // namespace shardproof::cublaslt

#endif  // SHARDPROOF_LAYERS_KERNELS_CUDA_BLAS_CUBLASLT_HEADER_H_
