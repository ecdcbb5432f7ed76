// For tests: where the libraries of testing/BUILD are, and the controls of one.
#ifndef SHARDPROOF_LAYERS_KERNELS_CUDA_BLAS_TESTING_HOST_BLAS_H_
#define SHARDPROOF_LAYERS_KERNELS_CUDA_BLAS_TESTING_HOST_BLAS_H_

#include <string>

#include "layers/kernels/cuda/blas/testing/host_cublaslt.h"

namespace shardproof::testing {

inline constexpr char kHostCublasLt[] =
    "layers/kernels/cuda/blas/testing/libcublaslt_host.so";
inline constexpr char kHostCublasLt119[] =
    "layers/kernels/cuda/blas/testing/libcublaslt_host_11_9.so";
inline constexpr char kHostCublasLtForGpus[] =
    "layers/kernels/cuda/blas/testing/libcublaslt_host_for_gpus.so";
inline constexpr char kHostCublasLtWithoutMatmul[] =
    "layers/kernels/cuda/blas/testing/libcublaslt_host_without_matmul.so";

// Of the library at `path`, which is loaded.
cublaslt::HostControls& HostBlasControls(
    const std::string& path = kHostCublasLt);

// As the library is when it has just been loaded. What is alive stays so.
void Reset(cublaslt::HostControls& controls);

}  // namespace shardproof::testing

#endif  // SHARDPROOF_LAYERS_KERNELS_CUDA_BLAS_TESTING_HOST_BLAS_H_
