// NVIDIA's cuBLASLt, loaded at run time and never linked: a binary starts where there is none, and takes the toolkit's or
// that of a Python wheel (site-packages/nvidia/cublas/lib, by LD_LIBRARY_PATH).
//
//     SP_ASSIGN_OR_RETURN(const auto library, CublasLtLibrary::Load());
//     library->Describe();              // "cuBLASLt 13.1.0 at /usr/local/cuda/lib64/libcublasLt.so.13"
//
// Loading one does not need a GPU; making products with it does (gemm_cublaslt.h). The oldest version is 12.0, as that of
// the toolkit; what is declared in cublaslt_abi.h has been compared with the header of 13.1.
#ifndef SHARDPROOF_LAYERS_KERNELS_CUDA_BLAS_CUBLASLT_LIBRARY_H_
#define SHARDPROOF_LAYERS_KERNELS_CUDA_BLAS_CUBLASLT_LIBRARY_H_

#include <cstddef>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "layers/kernels/cuda/blas/cublaslt_abi.h"
#include "reference/status.h"

namespace shardproof {

// 130100 is "13.1.0", 11902 is "11.9.2": the coding changed with 12.
std::string CublasLtVersionText(size_t version);

// Where a library is looked for that nobody names, in this order: libcublasLt.so.13, .so.12 and .so where the dynamic
// linker finds them, then each in the lib folders of CUDA_HOME, CUDA_PATH and /usr/local/cuda.
std::vector<std::string> CublasLtSearchPaths();

class CublasLtLibrary {
 public:
  // Opens `path`; empty: the first of CublasLtSearchPaths that can be opened. It stays loaded until the process ends.
  //
  // kUnavailable, as one sentence that names the file: it is not there or cannot be loaded, lacks a function, or is older
  // than 12.0.
  static StatusOr<std::shared_ptr<const CublasLtLibrary>> Load(
      const std::string& path = {});

  const cublaslt::Api& api() const { return api_; }
  // The file that was loaded.
  const std::string& path() const { return path_; }
  size_t version() const { return version_; }
  // "cuBLASLt 13.1.0 at /usr/lib/libcublasLt.so.13"
  std::string Describe() const;
  // Whether it works on emulated GPUs (collectives/backend/cuda/device/emulated_stream.h), and on no others.
  bool emulated() const { return emulated_; }

  // Ok for success. Else "what: CUBLAS_STATUS_...": kOutOfMemory where the library could not allocate, kUnsupported where
  // it has no such product or no code for this GPU, else kInternal.
  Status StatusOf(cublaslt::Result result, std::string_view what) const;

 private:
  CublasLtLibrary() = default;

  cublaslt::Api api_;
  std::string path_;
  size_t version_ = 0;
  bool emulated_ = false;
};

}  // namespace shardproof

#endif  // SHARDPROOF_LAYERS_KERNELS_CUDA_BLAS_CUBLASLT_LIBRARY_H_
