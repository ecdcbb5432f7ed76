// cuBLASLt's C interface, as far as it is called here: its types, numbers and signatures, declared again so that nothing
// here needs cublasLt.h or CUDA to be built. The library itself is found at run time (cublaslt_library.h).
//
// What each function is called in the library is its member's name in cuBLASLt's spelling: matmul is cublasLtMatmul. A
// cudaStream_t is a pointer here.
//
// Source: cublasLt.h of CUDA 13.0, and NVIDIA's documentation of cuBLAS 12 and 13.
#ifndef SHARDPROOF_LAYERS_KERNELS_CUDA_BLAS_CUBLASLT_ABI_H_
#define SHARDPROOF_LAYERS_KERNELS_CUDA_BLAS_CUBLASLT_ABI_H_

#include <array>
#include <cstddef>
#include <cstdint>

namespace shardproof::cublaslt {

struct OpaqueHandle;
using Handle = OpaqueHandle*;
struct OpaqueMatmulDesc;
using MatmulDesc = OpaqueMatmulDesc*;
struct OpaqueMatrixLayout;
using MatrixLayout = OpaqueMatrixLayout*;
struct OpaqueMatmulPreference;
using MatmulPreference = OpaqueMatmulPreference*;
using Stream = void*;

// cublasStatus_t
enum class Result : int {
  kSuccess = 0,
  kNotInitialized = 1,
  kAllocFailed = 3,
  kInvalidValue = 7,
  kArchMismatch = 8,
  kMappingError = 11,
  kExecutionFailed = 13,
  kInternalError = 14,
  kNotSupported = 15,
  kLicenseError = 16,
};

// cudaDataType_t
enum class DataType : int {
  kFloat32 = 0,
  kFloat64 = 1,
  kFloat16 = 2,
  kBfloat16 = 14,
};

// cublasComputeType_t. The first adds f32 up as f32; the third is the one that rounds operands to TF32.
enum class ComputeType : int {
  k32F = 68,
  k64F = 70,
  k32FFastTf32 = 77,
};

// cublasOperation_t
enum class Operation : int { kNone = 0, kTranspose = 1 };

enum class MatmulDescAttribute : int {
  kTransposeA = 3,           // int32_t, an Operation
  kTransposeB = 4,           // int32_t, an Operation
  kEpilogue = 7,             // uint32_t, an Epilogue
  kBiasPointer = 8,          // void*: the bias, or where its gradient goes
  kEpilogueAuxPointer = 11,  // void*
  kEpilogueAuxLeadingDimension = 12,  // int64_t, a multiple of 8
};

enum class Epilogue : uint32_t {
  kDefault = 1,
  kBias = 4,
  kGeluAuxBias = 32 | 128 | 4,
  kDGeluBiasGradient = 64 | 128 | 16,
};

enum class PreferenceAttribute : int {
  kMaxWorkspaceBytes = 1,    // uint64_t, default 0
  kReductionSchemeMask = 3,  // uint32_t, default: all schemes
  kMinAlignmentA = 5,        // uint32_t, bytes, default 256
  kMinAlignmentB = 6,
  kMinAlignmentC = 7,
  kMinAlignmentD = 8,
};

// cublasLtReductionScheme_t: how the parts of a split sum come together. All but the first let the order differ from run
// to run, or round in between.
enum ReductionScheme : uint32_t {
  kReductionNone = 0,
  kReductionInPlace = 1,
  kReductionComputeType = 2,
  kReductionOutputType = 4,
  kReductionMask = 7,
};

enum class AlgorithmConfig : int {
  kId = 0,               // int32_t
  kTileId = 1,           // uint32_t
  kSplitK = 2,           // int32_t
  kReductionScheme = 3,  // uint32_t
  kStagesId = 6,         // uint32_t
};

// cublasLtMatmulAlgo_t
struct Algorithm {
  std::array<uint64_t, 8> data;
};

// cublasLtMatmulHeuristicResult_t
struct HeuristicResult {
  Algorithm algorithm;
  size_t workspace_bytes;
  Result state;
  float waves;
  std::array<int, 4> reserved;
};

struct Api {
  size_t (*get_version)() = nullptr;
  const char* (*get_status_name)(Result) = nullptr;
  Result (*create)(Handle*) = nullptr;
  Result (*destroy)(Handle) = nullptr;

  Result (*matmul_desc_create)(MatmulDesc*, ComputeType,
                               DataType scale) = nullptr;
  Result (*matmul_desc_destroy)(MatmulDesc) = nullptr;
  Result (*matmul_desc_set_attribute)(MatmulDesc, MatmulDescAttribute,
                                      const void* value,
                                      size_t bytes) = nullptr;

  // Column-major.
  Result (*matrix_layout_create)(MatrixLayout*, DataType, uint64_t rows,
                                 uint64_t columns,
                                 int64_t leading_dimension) = nullptr;
  Result (*matrix_layout_destroy)(MatrixLayout) = nullptr;

  Result (*matmul_preference_create)(MatmulPreference*) = nullptr;
  Result (*matmul_preference_destroy)(MatmulPreference) = nullptr;
  Result (*matmul_preference_set_attribute)(MatmulPreference,
                                            PreferenceAttribute,
                                            const void* value,
                                            size_t bytes) = nullptr;

  // The best first, as the library estimates.
  Result (*matmul_algo_get_heuristic)(Handle, MatmulDesc, MatrixLayout a,
                                      MatrixLayout b, MatrixLayout c,
                                      MatrixLayout d, MatmulPreference,
                                      int asked, HeuristicResult* results,
                                      int* returned) = nullptr;
  Result (*matmul_algo_config_get_attribute)(const Algorithm*, AlgorithmConfig,
                                             void* value, size_t bytes,
                                             size_t* written) = nullptr;

  // D = epilogue(alpha op(A) op(B) + beta C), where C may be D.
  Result (*matmul)(Handle, MatmulDesc, const void* alpha, const void* a,
                   MatrixLayout a_layout, const void* b, MatrixLayout b_layout,
                   const void* beta, const void* c, MatrixLayout c_layout,
                   void* d, MatrixLayout d_layout, const Algorithm*,
                   void* workspace, size_t workspace_bytes, Stream) = nullptr;
};

}  // namespace shardproof::cublaslt

#endif  // SHARDPROOF_LAYERS_KERNELS_CUDA_BLAS_CUBLASLT_ABI_H_
