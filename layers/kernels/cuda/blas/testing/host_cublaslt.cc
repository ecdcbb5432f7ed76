// A small library with cuBLASLt's C interface that multiplies host memory on the streams of an emulated GPU: for tests
// without a GPU. A shared library of its own, so that it is found by dlopen as cuBLASLt is.
//
// It is as strict as cuBLASLt where a caller could be wrong: shapes, leading dimensions, alignments, workspaces, and the
// sizes of attributes. HOST_CUBLASLT_VERSION is the version it claims.
#include "layers/kernels/cuda/blas/testing/host_cublaslt.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <memory>

#include "collectives/backend/cuda/device/emulated_stream.h"
#include "layers/kernels/cuda/blas/cublaslt_abi.h"
#include "layers/kernels/cuda/blas/testing/host_product.h"
#include "reference/dtype.h"

namespace shardproof::cublaslt {
namespace {

HostControls& Controls() {
  static HostControls controls;
  return controls;
}
HostSeen& Seen() { return Controls().seen; }

void Call() {
  const HostBehaviour& behaviour = Controls().behaviour;
  if (behaviour.on_call != nullptr) {
    behaviour.on_call(behaviour.on_call_argument);
  }
}

struct HostPreference {
  uint64_t workspace_bytes = 0;
  uint32_t schemes = kReductionMask;
  std::array<uint32_t, 4> alignments = {256, 256, 256, 256};
};

template <class Mine, class Theirs>
Result Make(Mine made, Theirs* out) {
  *out = reinterpret_cast<Theirs>(
      std::make_unique<Mine>(std::move(made)).release());
  ++Seen().alive;
  return Result::kSuccess;
}
template <class Mine, class Theirs>
Result Remove(Theirs made) {
  const std::unique_ptr<Mine> gone(reinterpret_cast<Mine*>(made));
  --Seen().alive;
  return Result::kSuccess;
}

// Only of the very size.
template <class T>
Result Take(T& to, const void* value, size_t bytes) {
  if (value == nullptr || bytes != sizeof(T)) return Result::kInvalidValue;
  std::memcpy(&to, value, sizeof(T));
  return Result::kSuccess;
}

const HostDesc& Of(MatmulDesc desc) {
  return *reinterpret_cast<const HostDesc*>(desc);
}
const HostLayout& Of(MatrixLayout layout) {
  return *reinterpret_cast<const HostLayout*>(layout);
}

bool Fits(const HostDesc& desc, const HostLayout& a, const HostLayout& b,
          const HostLayout& c, const HostLayout& d) {
  const bool ta = desc.transpose_a != 0, tb = desc.transpose_b != 0;
  const int64_t rows = ta ? a.columns : a.rows;
  const int64_t depth = ta ? a.rows : a.columns;
  const int64_t inner = tb ? b.columns : b.rows;
  const int64_t columns = tb ? b.rows : b.columns;
  for (const HostLayout* one : {&a, &b, &c, &d}) {
    if (one->rows < 1 || one->columns < 1) return false;
    if (one->leading_dimension < one->rows || one->type != d.type) return false;
  }
  return depth == inner && rows == d.rows && columns == d.columns &&
         c.rows == d.rows && c.columns == d.columns;
}

bool HasEpilogue(const HostDesc& desc) {
  switch (static_cast<Epilogue>(desc.epilogue)) {
    case Epilogue::kDefault:
      return true;
    case Epilogue::kBias:
    case Epilogue::kGeluAuxBias:
    case Epilogue::kDGeluBiasGradient:
      return desc.compute != ComputeType::k64F &&
             !Controls().behaviour.no_epilogues;
  }
  return false;
}

bool EpilogueFits(const HostDesc& desc, const HostLayout& d) {
  const auto epilogue = static_cast<Epilogue>(desc.epilogue);
  if (epilogue == Epilogue::kDefault) return true;
  if (desc.bias == nullptr) return false;
  if (epilogue == Epilogue::kBias) return true;
  return desc.aux != nullptr && desc.aux_leading_dimension >= d.rows &&
         desc.aux_leading_dimension % 8 == 0;
}

bool Aligned(const void* data, uint32_t alignment) {
  return reinterpret_cast<uintptr_t>(data) % alignment == 0;
}

int IndexOf(const Algorithm* algorithm) {
  return static_cast<int>(algorithm->data[0]);
}

struct Work {
  HostProduct product;
  int algorithm = 0;
  std::byte* workspace = nullptr;
};

void Run(Work& work) {
  const HostAlgorithm& mine =
      Controls().behaviour.algorithms[static_cast<size_t>(work.algorithm)];
  // Real memory, and of nobody else.
  std::fill_n(work.workspace, mine.workspace_bytes, std::byte{0x5a});
  switch (work.product.d_layout.type) {
    case DataType::kFloat32:
      Multiply<float>(work.product);
      break;
    case DataType::kFloat64:
      Multiply<double>(work.product);
      break;
    case DataType::kFloat16:
      Multiply<Float16>(work.product);
      break;
    case DataType::kBfloat16:
      Multiply<BFloat16>(work.product);
      break;
  }
  Seen().clock.fetch_add(mine.microseconds);
}

double Scalar(const void* value, DataType type) {
  if (type == DataType::kFloat64) return *static_cast<const double*>(value);
  return static_cast<double>(*static_cast<const float*>(value));
}

}  // namespace
}  // namespace shardproof::cublaslt

// --- The interface ----------------------------------------------------------------------------------------------------

using namespace shardproof::cublaslt;  // NOLINT(google-build-using-namespace)

// NOLINTBEGIN(readability-identifier-naming): the names are cuBLASLt's.
#pragma GCC visibility push(default)
extern "C" {

HostControls* hostCublasLtControls() { return &Controls(); }

#ifndef HOST_CUBLASLT_FOR_GPUS
void takesEmulatedStreams() {}
#endif

size_t cublasLtGetVersion() { return HOST_CUBLASLT_VERSION; }

const char* cublasLtGetStatusName(Result result) {
  switch (result) {
    case Result::kSuccess:
      return "CUBLAS_STATUS_SUCCESS";
    case Result::kAllocFailed:
      return "CUBLAS_STATUS_ALLOC_FAILED";
    case Result::kInvalidValue:
      return "CUBLAS_STATUS_INVALID_VALUE";
    case Result::kArchMismatch:
      return "CUBLAS_STATUS_ARCH_MISMATCH";
    case Result::kExecutionFailed:
      return "CUBLAS_STATUS_EXECUTION_FAILED";
    case Result::kNotSupported:
      return "CUBLAS_STATUS_NOT_SUPPORTED";
    default:
      return "CUBLAS_STATUS_INTERNAL_ERROR";
  }
}

Result cublasLtCreate(Handle* handle) {
  Call();
  if (Controls().behaviour.create != Result::kSuccess) {
    return Controls().behaviour.create;
  }
  return Make(0, handle);
}
Result cublasLtDestroy(Handle handle) {
  Call();
  return Remove<int>(handle);
}

Result cublasLtMatmulDescCreate(MatmulDesc* desc, ComputeType compute,
                                DataType scale) {
  const bool wide = compute == ComputeType::k64F;
  if (wide != (scale == DataType::kFloat64)) return Result::kInvalidValue;
  return Make(HostDesc{.compute = compute, .scale = scale}, desc);
}
Result cublasLtMatmulDescDestroy(MatmulDesc desc) {
  return Remove<HostDesc>(desc);
}
Result cublasLtMatmulDescSetAttribute(MatmulDesc desc,
                                      MatmulDescAttribute attribute,
                                      const void* value, size_t bytes) {
  auto& mine = *reinterpret_cast<HostDesc*>(desc);
  switch (attribute) {
    case MatmulDescAttribute::kTransposeA:
      return Take(mine.transpose_a, value, bytes);
    case MatmulDescAttribute::kTransposeB:
      return Take(mine.transpose_b, value, bytes);
    case MatmulDescAttribute::kEpilogue:
      return Take(mine.epilogue, value, bytes);
    case MatmulDescAttribute::kBiasPointer:
      return Take(mine.bias, value, bytes);
    case MatmulDescAttribute::kEpilogueAuxPointer:
      return Take(mine.aux, value, bytes);
    case MatmulDescAttribute::kEpilogueAuxLeadingDimension:
      return Take(mine.aux_leading_dimension, value, bytes);
  }
  return Result::kInvalidValue;
}

Result cublasLtMatrixLayoutCreate(MatrixLayout* layout, DataType type,
                                  uint64_t rows, uint64_t columns,
                                  int64_t leading_dimension) {
  return Make(HostLayout{type, static_cast<int64_t>(rows),
                         static_cast<int64_t>(columns), leading_dimension},
              layout);
}
Result cublasLtMatrixLayoutDestroy(MatrixLayout layout) {
  return Remove<HostLayout>(layout);
}

Result cublasLtMatmulPreferenceCreate(MatmulPreference* preference) {
  return Make(HostPreference(), preference);
}
Result cublasLtMatmulPreferenceDestroy(MatmulPreference preference) {
  return Remove<HostPreference>(preference);
}
Result cublasLtMatmulPreferenceSetAttribute(MatmulPreference preference,
                                            PreferenceAttribute attribute,
                                            const void* value, size_t bytes) {
  auto& mine = *reinterpret_cast<HostPreference*>(preference);
  switch (attribute) {
    case PreferenceAttribute::kMaxWorkspaceBytes:
      return Take(mine.workspace_bytes, value, bytes);
    case PreferenceAttribute::kReductionSchemeMask:
      return Take(mine.schemes, value, bytes);
    case PreferenceAttribute::kMinAlignmentA:
      return Take(mine.alignments[0], value, bytes);
    case PreferenceAttribute::kMinAlignmentB:
      return Take(mine.alignments[1], value, bytes);
    case PreferenceAttribute::kMinAlignmentC:
      return Take(mine.alignments[2], value, bytes);
    case PreferenceAttribute::kMinAlignmentD:
      return Take(mine.alignments[3], value, bytes);
  }
  return Result::kInvalidValue;
}

Result cublasLtMatmulAlgoGetHeuristic(Handle /*handle*/, MatmulDesc desc,
                                      MatrixLayout a, MatrixLayout b,
                                      MatrixLayout c, MatrixLayout d,
                                      MatmulPreference preference, int asked,
                                      HeuristicResult* results, int* returned) {
  const HostBehaviour& behaviour = Controls().behaviour;
  ++Seen().heuristics;
  Seen().asked = asked;
  *returned = 0;
  if (behaviour.heuristics != Result::kSuccess) return behaviour.heuristics;
  if (!Fits(Of(desc), Of(a), Of(b), Of(c), Of(d)) ||
      !EpilogueFits(Of(desc), Of(d))) {
    return Result::kInvalidValue;
  }
  if (!HasEpilogue(Of(desc))) return Result::kNotSupported;
  const auto& wanted = *reinterpret_cast<const HostPreference*>(preference);
  const uint32_t alignment =
      *std::min_element(wanted.alignments.begin(), wanted.alignments.end());
  for (int i = 0; i < kHostAlgorithms && *returned < asked; ++i) {
    const HostAlgorithm& mine = behaviour.algorithms[static_cast<size_t>(i)];
    const bool may = (mine.scheme & ~wanted.schemes) == 0 &&
                     mine.alignment <= alignment &&
                     mine.workspace_bytes <= wanted.workspace_bytes;
    if (!may && !behaviour.ignores_preferences) continue;
    HeuristicResult& result = results[(*returned)++];
    result = {};
    result.algorithm.data[0] = static_cast<uint64_t>(i);
    result.workspace_bytes = mine.workspace_bytes;
    result.state = mine.state;
  }
  return *returned == 0 ? Result::kNotSupported : Result::kSuccess;
}

Result cublasLtMatmulAlgoConfigGetAttribute(const Algorithm* algorithm,
                                            AlgorithmConfig config, void* value,
                                            size_t bytes, size_t* written) {
  if (bytes != sizeof(uint32_t)) return Result::kInvalidValue;
  auto answer = static_cast<uint32_t>(IndexOf(algorithm));
  if (config == AlgorithmConfig::kReductionScheme) {
    answer = Controls().behaviour.algorithms[answer].scheme;
  }
  std::memcpy(value, &answer, bytes);
  *written = bytes;
  return Result::kSuccess;
}

#ifdef HOST_CUBLASLT_WITHOUT_MATMUL
#define cublasLtMatmul cublasLtMatmulOfAnotherName
#endif
Result cublasLtMatmul(Handle /*handle*/, MatmulDesc desc, const void* alpha,
                      const void* a, MatrixLayout a_layout, const void* b,
                      MatrixLayout b_layout, const void* beta, const void* c,
                      MatrixLayout c_layout, void* d, MatrixLayout d_layout,
                      const Algorithm* algorithm, void* workspace,
                      size_t workspace_bytes, Stream stream) {
  Call();
  const int index = IndexOf(algorithm);
  const HostAlgorithm& mine =
      Controls().behaviour.algorithms[static_cast<size_t>(index)];
  Seen().last_algorithm = index;
  ++Seen().products[static_cast<size_t>(index)];
  if (mine.result != Result::kSuccess) return mine.result;
  const HostDesc& how = Of(desc);
  if (!Fits(how, Of(a_layout), Of(b_layout), Of(c_layout), Of(d_layout)) ||
      !EpilogueFits(how, Of(d_layout)) ||
      workspace_bytes < mine.workspace_bytes) {
    return Result::kInvalidValue;
  }
  for (const void* data : {a, b, c, static_cast<const void*>(d),
                           static_cast<const void*>(how.bias),
                           static_cast<const void*>(how.aux)}) {
    if (!Aligned(data, mine.alignment)) return Result::kInvalidValue;
  }
  if (!HasEpilogue(how)) return Result::kNotSupported;
  auto work = std::make_unique<Work>();
  work->product = {.desc = how,
                   .a_layout = Of(a_layout),
                   .b_layout = Of(b_layout),
                   .c_layout = Of(c_layout),
                   .d_layout = Of(d_layout),
                   .alpha = Scalar(alpha, how.scale),
                   .beta = Scalar(beta, how.scale),
                   .a = a,
                   .b = b,
                   .c = c,
                   .d = d};
  work->algorithm = index;
  work->workspace = static_cast<std::byte*>(workspace);
  auto* const queue =
      static_cast<shardproof::cuda::EmulatedStreamHandle*>(stream);
  queue->enqueue(
      queue,
      [](void* argument) {
        const std::unique_ptr<Work> owned(static_cast<Work*>(argument));
        Run(*owned);
      },
      work.release());
  return Result::kSuccess;
}

}  // extern "C"
#pragma GCC visibility pop
// NOLINTEND(readability-identifier-naming)
