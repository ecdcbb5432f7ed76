#include "layers/kernels/cuda/blas/cublaslt_plan.h"

#include <fmt/format.h>

#include <algorithm>
#include <string>
#include <utility>

namespace shardproof::cublaslt {
namespace {

// What cublasLtMatmul supposes of pointers if nothing is said, and the widest access of a kernel. Between the two an address
// has some alignment by chance, and each would be timed anew.
constexpr uint32_t kBestAlignment = 256;
constexpr uint32_t kVectorAlignment = 16;

uint32_t AlignmentOf(const void* data) {
  const auto address = reinterpret_cast<uintptr_t>(data);
  if (address % kBestAlignment == 0) return kBestAlignment;
  uint32_t alignment = 1;
  while (alignment < kVectorAlignment && address % (2 * alignment) == 0) {
    alignment *= 2;
  }
  return alignment;
}

DataType DataTypeOf(DType dtype) {
  switch (dtype) {
    case DType::kF64:
      return DataType::kFloat64;
    case DType::kBF16:
      return DataType::kBfloat16;
    case DType::kF16:
      return DataType::kFloat16;
    default:
      return DataType::kFloat32;
  }
}

// f32 is multiplied as f32: 32F_FAST_TF32 would round its operands to 10 bits. bf16 and f16 are exact in f32, and added up
// in it.
ComputeType ComputeTypeOf(DType dtype) {
  return dtype == DType::kF64 ? ComputeType::k64F : ComputeType::k32F;
}
DataType ScaleTypeOf(DType dtype) {
  return dtype == DType::kF64 ? DataType::kFloat64 : DataType::kFloat32;
}

}  // namespace

bool HasDataType(DType dtype) {
  return dtype == DType::kF64 || dtype == DType::kF32 ||
         dtype == DType::kBF16 || dtype == DType::kF16;
}

ProductKey ProductKey::For(const GemmArgs& args, Epilogue epilogue,
                           const Operands& operands) {
  return {.dtype = args.c.dtype,
          .m = args.c.shape[0],
          .n = args.c.shape[1],
          .k = args.a.shape[args.transpose_a ? 0 : 1],
          .transpose_a = args.transpose_a,
          .transpose_b = args.transpose_b,
          .accumulate = args.accumulate,
          .epilogue = epilogue,
          .alignment_a = AlignmentOf(operands.a),
          .alignment_b = AlignmentOf(operands.b),
          .alignment_c =
              std::min({AlignmentOf(operands.c), AlignmentOf(operands.bias),
                        AlignmentOf(operands.aux)})};
}

std::string ProductKey::ToString() const {
  std::string text =
      fmt::format("{} {} x {} x {} (m, n, k)", Name(dtype), m, n, k);
  if (transpose_a) text += ", a transposed";
  if (transpose_b) text += ", b transposed";
  if (accumulate) text += ", accumulated";
  switch (epilogue) {
    case Epilogue::kDefault:
      break;
    case Epilogue::kBias:
      text += ", bias";
      break;
    case Epilogue::kGeluAuxBias:
      text += ", bias and GELU";
      break;
    case Epilogue::kDGeluBiasGradient:
      text += ", gradients of GELU and bias";
      break;
  }
  return text + fmt::format(", aligned to {}, {}, {}", alignment_a, alignment_b,
                            alignment_c);
}

StatusOr<Plan> Plan::Create(std::shared_ptr<const CublasLtLibrary> library,
                            const ProductKey& key) {
  Plan plan;
  plan.library_ = std::move(library);
  plan.key_ = key;
  SP_ASSIGN_OR_RETURN(plan.layout_a_, key.transpose_b
                                          ? plan.MakeLayout(key.k, key.n)
                                          : plan.MakeLayout(key.n, key.k));
  SP_ASSIGN_OR_RETURN(plan.layout_b_, key.transpose_a
                                          ? plan.MakeLayout(key.m, key.k)
                                          : plan.MakeLayout(key.k, key.m));
  SP_ASSIGN_OR_RETURN(plan.layout_c_, plan.MakeLayout(key.n, key.m));
  return plan;
}

StatusOr<Plan::Layout> Plan::MakeLayout(int64_t rows, int64_t columns) const {
  MatrixLayout made = nullptr;
  SP_RETURN_IF_ERROR(library_->StatusOf(
      api().matrix_layout_create(
          &made, DataTypeOf(key_.dtype), static_cast<uint64_t>(rows),
          static_cast<uint64_t>(columns), /*leading_dimension=*/rows),
      "cublasLtMatrixLayoutCreate"));
  return Layout(made, {api().matrix_layout_destroy});
}

StatusOr<Owned<OpaqueMatmulDesc>> Plan::Describe(
    const Operands& operands) const {
  MatmulDesc made = nullptr;
  SP_RETURN_IF_ERROR(library_->StatusOf(
      api().matmul_desc_create(&made, ComputeTypeOf(key_.dtype),
                               ScaleTypeOf(key_.dtype)),
      "cublasLtMatmulDescCreate"));
  Owned<OpaqueMatmulDesc> desc(made, {api().matmul_desc_destroy});
  const auto set = [&](MatmulDescAttribute attribute, auto value) {
    return library_->StatusOf(api().matmul_desc_set_attribute(
                                  desc.get(), attribute, &value, sizeof(value)),
                              "cublasLtMatmulDescSetAttribute");
  };
  const auto operation = [](bool transposed) {
    return static_cast<int32_t>(transposed ? Operation::kTranspose
                                           : Operation::kNone);
  };
  SP_RETURN_IF_ERROR(
      set(MatmulDescAttribute::kTransposeA, operation(key_.transpose_b)));
  SP_RETURN_IF_ERROR(
      set(MatmulDescAttribute::kTransposeB, operation(key_.transpose_a)));
  if (key_.epilogue == Epilogue::kDefault) return desc;
  SP_RETURN_IF_ERROR(set(MatmulDescAttribute::kEpilogue,
                         static_cast<uint32_t>(key_.epilogue)));
  SP_RETURN_IF_ERROR(set(MatmulDescAttribute::kBiasPointer, operands.bias));
  if (operands.aux == nullptr) return desc;
  SP_RETURN_IF_ERROR(
      set(MatmulDescAttribute::kEpilogueAuxPointer, operands.aux));
  SP_RETURN_IF_ERROR(
      set(MatmulDescAttribute::kEpilogueAuxLeadingDimension, key_.n));
  return desc;
}

StatusOr<Owned<OpaqueMatmulPreference>> Plan::Prefer(
    size_t workspace_bytes) const {
  MatmulPreference made = nullptr;
  SP_RETURN_IF_ERROR(library_->StatusOf(api().matmul_preference_create(&made),
                                        "cublasLtMatmulPreferenceCreate"));
  Owned<OpaqueMatmulPreference> preference(made,
                                           {api().matmul_preference_destroy});
  const auto set = [&](PreferenceAttribute attribute, auto value) {
    return library_->StatusOf(
        api().matmul_preference_set_attribute(preference.get(), attribute,
                                              &value, sizeof(value)),
        "cublasLtMatmulPreferenceSetAttribute");
  };
  SP_RETURN_IF_ERROR(
      set(PreferenceAttribute::kMaxWorkspaceBytes, uint64_t{workspace_bytes}));
  SP_RETURN_IF_ERROR(set(PreferenceAttribute::kReductionSchemeMask,
                         static_cast<uint32_t>(kReductionNone)));
  SP_RETURN_IF_ERROR(
      set(PreferenceAttribute::kMinAlignmentA, key_.alignment_b));
  SP_RETURN_IF_ERROR(
      set(PreferenceAttribute::kMinAlignmentB, key_.alignment_a));
  SP_RETURN_IF_ERROR(
      set(PreferenceAttribute::kMinAlignmentC, key_.alignment_c));
  SP_RETURN_IF_ERROR(
      set(PreferenceAttribute::kMinAlignmentD, key_.alignment_c));
  return preference;
}

StatusOr<std::vector<Candidate>> Plan::Candidates(
    Handle handle, const Operands& operands, int asked,
    size_t workspace_bytes) const {
  SP_ASSIGN_OR_RETURN(const auto desc, Describe(operands));
  SP_ASSIGN_OR_RETURN(const auto preference, Prefer(workspace_bytes));
  std::vector<HeuristicResult> offered(static_cast<size_t>(asked));
  int returned = 0;
  const Result result = api().matmul_algo_get_heuristic(
      handle, desc.get(), layout_a_.get(), layout_b_.get(), layout_c_.get(),
      layout_c_.get(), preference.get(), asked, offered.data(), &returned);
  if (result == Result::kNotSupported) return std::vector<Candidate>();
  SP_RETURN_IF_ERROR(library_->StatusOf(
      result, "cublasLtMatmulAlgoGetHeuristic of " + key_.ToString()));
  offered.resize(static_cast<size_t>(std::clamp(returned, 0, asked)));
  std::vector<Candidate> candidates;
  for (const HeuristicResult& one : offered) {
    if (one.state != Result::kSuccess ||
        one.workspace_bytes > workspace_bytes) {
      continue;
    }
    Candidate candidate{.algorithm = one.algorithm,
                        .workspace_bytes = one.workspace_bytes};
    const auto get = [&](AlgorithmConfig config, auto& value) {
      size_t written = 0;
      return library_->StatusOf(
          api().matmul_algo_config_get_attribute(
              &candidate.algorithm, config, &value, sizeof(value), &written),
          "cublasLtMatmulAlgoConfigGetAttribute");
    };
    uint32_t scheme = kReductionNone;
    SP_RETURN_IF_ERROR(get(AlgorithmConfig::kReductionScheme, scheme));
    // It was asked for none, and is not trusted.
    if (scheme != kReductionNone) continue;
    SP_RETURN_IF_ERROR(get(AlgorithmConfig::kId, candidate.id));
    SP_RETURN_IF_ERROR(get(AlgorithmConfig::kTileId, candidate.tile));
    SP_RETURN_IF_ERROR(get(AlgorithmConfig::kStagesId, candidate.stages));
    candidates.push_back(candidate);
  }
  return candidates;
}

Status Plan::Enqueue(Handle handle, const Operands& operands,
                     const Algorithm& algorithm, void* workspace,
                     size_t workspace_bytes, Stream stream) const {
  SP_ASSIGN_OR_RETURN(const auto desc, Describe(operands));
  // Of the scale type.
  struct Scalar {
    float f32;
    double f64;
  };
  const Scalar alpha{1, 1};
  const Scalar beta = key_.accumulate ? Scalar{1, 1} : Scalar{0, 0};
  const auto address = [&](const Scalar& scalar) -> const void* {
    if (key_.dtype == DType::kF64) return &scalar.f64;
    return &scalar.f32;
  };
  const Result result =
      api().matmul(handle, desc.get(), address(alpha), operands.b,
                   layout_a_.get(), operands.a, layout_b_.get(), address(beta),
                   operands.c, layout_c_.get(), operands.c, layout_c_.get(),
                   &algorithm, workspace, workspace_bytes, stream);
  // A string is made for errors alone.
  if (result == Result::kSuccess) [[likely]]
    return OkStatus();
  return library_->StatusOf(result, "cublasLtMatmul of " + key_.ToString());
}

}  // namespace shardproof::cublaslt
