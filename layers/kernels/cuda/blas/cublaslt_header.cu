// Compiled by nvcc, which knows where its toolkit's headers are; all of it is for the host.
#include "layers/kernels/cuda/blas/cublaslt_header.h"

#if __has_include(<cublasLt.h>)
#include <cublasLt.h>
#define SHARDPROOF_HAS_CUBLASLT_H 1
#else
#define SHARDPROOF_HAS_CUBLASLT_H 0
#endif

#include <cstddef>

#include "layers/kernels/cuda/blas/cublaslt_abi.h"

namespace shardproof::cublaslt {

// A source without a kernel gives no report, and that is an error (tools/bazel/nvcc.sh).
__global__ void NoKernel() {}

namespace {

#if SHARDPROOF_HAS_CUBLASLT_H

// Their type in our terms.
template <class T>
struct Ours {
  using type = T;
};
#define SHARDPROOF_OURS(theirs, ours) \
  template <>                         \
  struct Ours<theirs> {               \
    using type = ours;                \
  }
SHARDPROOF_OURS(cublasStatus_t, Result);
SHARDPROOF_OURS(cublasLtHandle_t, Handle);
SHARDPROOF_OURS(cublasLtHandle_t*, Handle*);
SHARDPROOF_OURS(cublasLtMatmulDesc_t, MatmulDesc);
SHARDPROOF_OURS(cublasLtMatmulDesc_t*, MatmulDesc*);
SHARDPROOF_OURS(cublasLtMatrixLayout_t, MatrixLayout);
SHARDPROOF_OURS(cublasLtMatrixLayout_t*, MatrixLayout*);
SHARDPROOF_OURS(cublasLtMatmulPreference_t, MatmulPreference);
SHARDPROOF_OURS(cublasLtMatmulPreference_t*, MatmulPreference*);
SHARDPROOF_OURS(cublasComputeType_t, ComputeType);
SHARDPROOF_OURS(cudaDataType_t, DataType);
SHARDPROOF_OURS(cublasLtMatmulDescAttributes_t, MatmulDescAttribute);
SHARDPROOF_OURS(cublasLtMatmulPreferenceAttributes_t, PreferenceAttribute);
SHARDPROOF_OURS(cublasLtMatmulAlgoConfigAttributes_t, AlgorithmConfig);
SHARDPROOF_OURS(const cublasLtMatmulAlgo_t*, const Algorithm*);
SHARDPROOF_OURS(cublasLtMatmulHeuristicResult_t*, HeuristicResult*);
SHARDPROOF_OURS(cudaStream_t, Stream);
#undef SHARDPROOF_OURS

using Comparison = HeaderComparator<Ours>;

void CompareResultsAndTypes(Comparison& all) {
  all.Numbers("CUBLAS_STATUS_SUCCESS", Result::kSuccess, CUBLAS_STATUS_SUCCESS);
  all.Numbers("CUBLAS_STATUS_NOT_INITIALIZED", Result::kNotInitialized,
              CUBLAS_STATUS_NOT_INITIALIZED);
  all.Numbers("CUBLAS_STATUS_ALLOC_FAILED", Result::kAllocFailed,
              CUBLAS_STATUS_ALLOC_FAILED);
  all.Numbers("CUBLAS_STATUS_INVALID_VALUE", Result::kInvalidValue,
              CUBLAS_STATUS_INVALID_VALUE);
  all.Numbers("CUBLAS_STATUS_ARCH_MISMATCH", Result::kArchMismatch,
              CUBLAS_STATUS_ARCH_MISMATCH);
  all.Numbers("CUBLAS_STATUS_MAPPING_ERROR", Result::kMappingError,
              CUBLAS_STATUS_MAPPING_ERROR);
  all.Numbers("CUBLAS_STATUS_EXECUTION_FAILED", Result::kExecutionFailed,
              CUBLAS_STATUS_EXECUTION_FAILED);
  all.Numbers("CUBLAS_STATUS_INTERNAL_ERROR", Result::kInternalError,
              CUBLAS_STATUS_INTERNAL_ERROR);
  all.Numbers("CUBLAS_STATUS_NOT_SUPPORTED", Result::kNotSupported,
              CUBLAS_STATUS_NOT_SUPPORTED);
  all.Numbers("CUBLAS_STATUS_LICENSE_ERROR", Result::kLicenseError,
              CUBLAS_STATUS_LICENSE_ERROR);
  all.Numbers("CUDA_R_32F", DataType::kFloat32, CUDA_R_32F);
  all.Numbers("CUDA_R_64F", DataType::kFloat64, CUDA_R_64F);
  all.Numbers("CUDA_R_16F", DataType::kFloat16, CUDA_R_16F);
  all.Numbers("CUDA_R_16BF", DataType::kBfloat16, CUDA_R_16BF);
  all.Numbers("CUBLAS_COMPUTE_32F", ComputeType::k32F, CUBLAS_COMPUTE_32F);
  all.Numbers("CUBLAS_COMPUTE_64F", ComputeType::k64F, CUBLAS_COMPUTE_64F);
  all.Numbers("CUBLAS_COMPUTE_32F_FAST_TF32", ComputeType::k32FFastTf32,
              CUBLAS_COMPUTE_32F_FAST_TF32);
  all.Numbers("CUBLAS_OP_N", Operation::kNone, CUBLAS_OP_N);
  all.Numbers("CUBLAS_OP_T", Operation::kTranspose, CUBLAS_OP_T);
}

void CompareAttributes(Comparison& all) {
  using Desc = MatmulDescAttribute;
  all.Numbers("CUBLASLT_MATMUL_DESC_TRANSA", Desc::kTransposeA,
              CUBLASLT_MATMUL_DESC_TRANSA);
  all.Numbers("CUBLASLT_MATMUL_DESC_TRANSB", Desc::kTransposeB,
              CUBLASLT_MATMUL_DESC_TRANSB);
  all.Numbers("CUBLASLT_MATMUL_DESC_EPILOGUE", Desc::kEpilogue,
              CUBLASLT_MATMUL_DESC_EPILOGUE);
  all.Numbers("CUBLASLT_MATMUL_DESC_BIAS_POINTER", Desc::kBiasPointer,
              CUBLASLT_MATMUL_DESC_BIAS_POINTER);
  all.Numbers("CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_POINTER",
              Desc::kEpilogueAuxPointer,
              CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_POINTER);
  all.Numbers("CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_LD",
              Desc::kEpilogueAuxLeadingDimension,
              CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_LD);
  all.Numbers("CUBLASLT_EPILOGUE_DEFAULT", Epilogue::kDefault,
              CUBLASLT_EPILOGUE_DEFAULT);
  all.Numbers("CUBLASLT_EPILOGUE_BIAS", Epilogue::kBias,
              CUBLASLT_EPILOGUE_BIAS);
  all.Numbers("CUBLASLT_EPILOGUE_GELU_AUX_BIAS", Epilogue::kGeluAuxBias,
              CUBLASLT_EPILOGUE_GELU_AUX_BIAS);
  all.Numbers("CUBLASLT_EPILOGUE_DGELU_BGRAD", Epilogue::kDGeluBiasGradient,
              CUBLASLT_EPILOGUE_DGELU_BGRAD);
  using Preference = PreferenceAttribute;
  all.Numbers("CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES",
              Preference::kMaxWorkspaceBytes,
              CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES);
  all.Numbers("CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK",
              Preference::kReductionSchemeMask,
              CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK);
  all.Numbers("CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES",
              Preference::kMinAlignmentA,
              CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES);
  all.Numbers("CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES",
              Preference::kMinAlignmentB,
              CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES);
  all.Numbers("CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES",
              Preference::kMinAlignmentC,
              CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES);
  all.Numbers("CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES",
              Preference::kMinAlignmentD,
              CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES);
  all.Numbers("CUBLASLT_REDUCTION_SCHEME_NONE", kReductionNone,
              CUBLASLT_REDUCTION_SCHEME_NONE);
  all.Numbers("CUBLASLT_REDUCTION_SCHEME_INPLACE", kReductionInPlace,
              CUBLASLT_REDUCTION_SCHEME_INPLACE);
  all.Numbers("CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE", kReductionComputeType,
              CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE);
  all.Numbers("CUBLASLT_REDUCTION_SCHEME_OUTPUT_TYPE", kReductionOutputType,
              CUBLASLT_REDUCTION_SCHEME_OUTPUT_TYPE);
  all.Numbers("CUBLASLT_REDUCTION_SCHEME_MASK", kReductionMask,
              CUBLASLT_REDUCTION_SCHEME_MASK);
  all.Numbers("CUBLASLT_ALGO_CONFIG_ID", AlgorithmConfig::kId,
              CUBLASLT_ALGO_CONFIG_ID);
  all.Numbers("CUBLASLT_ALGO_CONFIG_TILE_ID", AlgorithmConfig::kTileId,
              CUBLASLT_ALGO_CONFIG_TILE_ID);
  all.Numbers("CUBLASLT_ALGO_CONFIG_SPLITK_NUM", AlgorithmConfig::kSplitK,
              CUBLASLT_ALGO_CONFIG_SPLITK_NUM);
  all.Numbers("CUBLASLT_ALGO_CONFIG_REDUCTION_SCHEME",
              AlgorithmConfig::kReductionScheme,
              CUBLASLT_ALGO_CONFIG_REDUCTION_SCHEME);
  all.Numbers("CUBLASLT_ALGO_CONFIG_STAGES_ID", AlgorithmConfig::kStagesId,
              CUBLASLT_ALGO_CONFIG_STAGES_ID);
}

void CompareStructs(Comparison& all) {
  using Theirs = cublasLtMatmulHeuristicResult_t;
  all.Numbers("sizeof Algorithm", sizeof(Algorithm),
              sizeof(cublasLtMatmulAlgo_t));
  all.Numbers("alignof Algorithm", alignof(Algorithm),
              alignof(cublasLtMatmulAlgo_t));
  all.Numbers("sizeof HeuristicResult", sizeof(HeuristicResult),
              sizeof(Theirs));
  all.Numbers("offset of algo", offsetof(HeuristicResult, algorithm),
              offsetof(Theirs, algo));
  all.Numbers("offset of workspaceSize",
              offsetof(HeuristicResult, workspace_bytes),
              offsetof(Theirs, workspaceSize));
  all.Numbers("offset of state", offsetof(HeuristicResult, state),
              offsetof(Theirs, state));
  all.Numbers("offset of wavesCount", offsetof(HeuristicResult, waves),
              offsetof(Theirs, wavesCount));
  all.Numbers("offset of reserved", offsetof(HeuristicResult, reserved),
              offsetof(Theirs, reserved));
}

void CompareFunctions(Comparison& all) {
  all.Functions<decltype(cublasLtGetVersion), decltype(Api::get_version)>(
      "cublasLtGetVersion");
  all.Functions<decltype(cublasLtGetStatusName),
                decltype(Api::get_status_name)>("cublasLtGetStatusName");
  all.Functions<decltype(cublasLtCreate), decltype(Api::create)>(
      "cublasLtCreate");
  all.Functions<decltype(cublasLtDestroy), decltype(Api::destroy)>(
      "cublasLtDestroy");
  all.Functions<decltype(cublasLtMatmulDescCreate),
                decltype(Api::matmul_desc_create)>("cublasLtMatmulDescCreate");
  all.Functions<decltype(cublasLtMatmulDescDestroy),
                decltype(Api::matmul_desc_destroy)>(
      "cublasLtMatmulDescDestroy");
  all.Functions<decltype(cublasLtMatmulDescSetAttribute),
                decltype(Api::matmul_desc_set_attribute)>(
      "cublasLtMatmulDescSetAttribute");
  all.Functions<decltype(cublasLtMatrixLayoutCreate),
                decltype(Api::matrix_layout_create)>(
      "cublasLtMatrixLayoutCreate");
  all.Functions<decltype(cublasLtMatrixLayoutDestroy),
                decltype(Api::matrix_layout_destroy)>(
      "cublasLtMatrixLayoutDestroy");
  all.Functions<decltype(cublasLtMatmulPreferenceCreate),
                decltype(Api::matmul_preference_create)>(
      "cublasLtMatmulPreferenceCreate");
  all.Functions<decltype(cublasLtMatmulPreferenceDestroy),
                decltype(Api::matmul_preference_destroy)>(
      "cublasLtMatmulPreferenceDestroy");
  all.Functions<decltype(cublasLtMatmulPreferenceSetAttribute),
                decltype(Api::matmul_preference_set_attribute)>(
      "cublasLtMatmulPreferenceSetAttribute");
  all.Functions<decltype(cublasLtMatmulAlgoGetHeuristic),
                decltype(Api::matmul_algo_get_heuristic)>(
      "cublasLtMatmulAlgoGetHeuristic");
  all.Functions<decltype(cublasLtMatmulAlgoConfigGetAttribute),
                decltype(Api::matmul_algo_config_get_attribute)>(
      "cublasLtMatmulAlgoConfigGetAttribute");
  all.Functions<decltype(cublasLtMatmul), decltype(Api::matmul)>(
      "cublasLtMatmul");
}

#endif

}  // namespace

HeaderComparison CompareWithHeader() {
#if SHARDPROOF_HAS_CUBLASLT_H
  Comparison all;
  CompareResultsAndTypes(all);
  CompareAttributes(all);
  CompareStructs(all);
  CompareFunctions(all);
  return all.result();
#else
  return {};
#endif
}

}  // namespace shardproof::cublaslt
