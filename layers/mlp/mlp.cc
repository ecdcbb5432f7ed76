#include "layers/mlp/mlp.h"

#include <string>
#include <utility>

#include "collectives/chunks.h"
#include "layers/kernels/activation.h"
#include "layers/kernels/gemm.h"
#include "layers/tensor_parallel/agree.h"

namespace shardproof {
namespace {

// Of the region before the first product, and of that behind the last.
RegionShape Outside(const ParallelMlpConfig& config) {
  return {.tokens = config.tokens,
          .width = config.hidden,
          .dtype = config.dtype,
          .sequence_parallel = config.sequence_parallel};
}

Status Check(const Communicator& comm, const ParallelMlpConfig& config) {
  const std::string text =
      fmt::format("mlp of {} tokens, {} to {} and back, {}, {}{}{}",
                  config.tokens, config.hidden, config.intermediate,
                  config.activation == Activation::kSwiGlu ? "swiglu" : "gelu",
                  Name(config.dtype), config.bias ? ", bias" : "",
                  config.sequence_parallel ? ", sequence-parallel" : "");
  SP_RETURN_IF_ERROR(AgreeOnLayer(comm, text));
  if (config.tokens < 0 || config.hidden < 0 || config.intermediate < 0) {
    return InvalidArgument("{}: a size is negative", text);
  }
  return CheckLayerType(config.dtype).WithContext(text);
}

}  // namespace

ParallelMlp::ParallelMlp(const ParallelMlpConfig& config, int64_t features,
                         ParallelRegion input, ParallelRegion output)
    : config_(config),
      features_(features),
      input_(std::move(input)),
      output_(std::move(output)) {}

StatusOr<ParallelMlp> ParallelMlp::Create(const Communicator& comm,
                                          const ParallelMlpConfig& config,
                                          const CollectiveFamily& collectives) {
  SP_RETURN_IF_ERROR(Check(comm, config));
  const auto make = [&]() -> StatusOr<ParallelMlp> {
    SP_ASSIGN_OR_RETURN(
        ParallelRegion input,
        ParallelRegion::Create(comm, Outside(config), collectives));
    SP_ASSIGN_OR_RETURN(
        ParallelRegion output,
        ParallelRegion::Create(comm, Outside(config), collectives));
    ParallelMlp mlp(
        config,
        BalancedChunk(config.intermediate, comm.size(), comm.rank()).count,
        std::move(input), std::move(output));
    const Shape shape = {config.tokens, mlp.features_};
    for (Tensor* tensor :
         {&mlp.gate_, &mlp.up_, &mlp.activated_, &mlp.d_activated_}) {
      if (tensor == &mlp.gate_ && !mlp.gated()) continue;
      SP_ASSIGN_OR_RETURN(*tensor, Tensor::Create(config.dtype, shape));
    }
    return mlp;
  };
  StatusOr<ParallelMlp> mlp = make();
  SP_RETURN_IF_ERROR(AgreeOnStatus(comm, mlp.status()));
  return mlp;
}

Status ParallelMlp::Project(const Stream& stream, const void* x, const void* w,
                            const void* b, Tensor& out) const {
  const DType dtype = config_.dtype;
  return Gemm(stream, {.a = {dtype, {config_.tokens, config_.hidden}, x},
                       .b = {dtype, {features_, config_.hidden}, w},
                       .transpose_b = true,
                       .c = out.view(),
                       .bias = config_.bias ? b : nullptr});
}

Status ParallelMlp::ProjectionGradients(const Stream& stream, const Tensor& dz,
                                        const void* x, void* dw,
                                        void* db) const {
  const DType dtype = config_.dtype;
  SP_RETURN_IF_ERROR(
      Gemm(stream, {.a = dz.view(),
                    .transpose_a = true,
                    .b = {dtype, {config_.tokens, config_.hidden}, x},
                    .c = {dtype, {features_, config_.hidden}, dw}}));
  if (!config_.bias) return OkStatus();
  return ColumnSum(stream, dtype, config_.tokens, features_, dz.raw(), db);
}

Status ParallelMlp::InputTerm(const Stream& stream, const Tensor& dz,
                              const void* w, bool accumulate, void* out) const {
  const DType dtype = config_.dtype;
  return Gemm(stream, {.a = dz.view(),
                       .b = {dtype, {features_, config_.hidden}, w},
                       .c = {dtype, {config_.tokens, config_.hidden}, out},
                       .accumulate = accumulate});
}

Status ParallelMlp::ActivationGradient(const Stream& stream) {
  const DType dtype = config_.dtype;
  const int64_t n = up_.num_elements();
  if (!gated()) {
    return GeluBackward(stream, dtype, n, up_.raw(), d_activated_.raw(),
                        up_.raw());
  }
  return SwiGluBackward(stream, dtype, n, gate_.raw(), up_.raw(),
                        d_activated_.raw(), gate_.raw(), up_.raw());
}

Status ParallelMlp::Forward(const void* x, const MlpWeights& weights, void* y,
                            const Stream& stream) {
  const DType dtype = config_.dtype;
  SP_ASSIGN_OR_RETURN(const void* const all, input_.Enter(stream, x));
  SP_RETURN_IF_ERROR(Project(stream, all, weights.w_up, weights.b_up, up_));
  if (gated()) {
    SP_RETURN_IF_ERROR(
        Project(stream, all, weights.w_gate, weights.b_gate, gate_));
    SP_RETURN_IF_ERROR(SwiGlu(stream, dtype, up_.num_elements(), gate_.raw(),
                              up_.raw(), activated_.raw()));
  } else {
    SP_RETURN_IF_ERROR(
        Gelu(stream, dtype, up_.num_elements(), up_.raw(), activated_.raw()));
  }
  SP_RETURN_IF_ERROR(Gemm(
      stream,
      {.a = activated_.view(),
       .b = {dtype, {config_.hidden, features_}, weights.w_down},
       .transpose_b = true,
       .c = {dtype, {config_.tokens, config_.hidden}, output_.Partial(y)}}));
  SP_RETURN_IF_ERROR(output_.Leave(stream, y));
  if (!config_.bias) return OkStatus();
  return AddBias(stream, dtype, output_.local_tokens(), config_.hidden,
                 weights.b_down, y);
}

Status ParallelMlp::Backward(const void* x, const MlpWeights& weights,
                             const void* dy, void* dx,
                             const MlpGradients& gradients,
                             const Stream& stream) {
  const DType dtype = config_.dtype;
  SP_ASSIGN_OR_RETURN(const void* const all_dy, output_.Enter(stream, dy));
  const ConstTensorView dy_view(dtype, {config_.tokens, config_.hidden},
                                all_dy);
  SP_RETURN_IF_ERROR(
      Gemm(stream, {.a = dy_view,
                    .b = {dtype, {config_.hidden, features_}, weights.w_down},
                    .c = d_activated_.view()}));
  SP_RETURN_IF_ERROR(Gemm(
      stream, {.a = dy_view,
               .transpose_a = true,
               .b = activated_.view(),
               .c = {dtype, {config_.hidden, features_}, gradients.w_down}}));
  if (config_.bias) {
    SP_RETURN_IF_ERROR(ColumnSum(stream, dtype, config_.tokens, config_.hidden,
                                 all_dy, gradients.b_down));
  }
  SP_RETURN_IF_ERROR(ActivationGradient(stream));
  SP_ASSIGN_OR_RETURN(const void* const all_x, input_.Enter(stream, x));
  SP_RETURN_IF_ERROR(
      ProjectionGradients(stream, up_, all_x, gradients.w_up, gradients.b_up));
  if (gated()) {
    SP_RETURN_IF_ERROR(ProjectionGradients(stream, gate_, all_x,
                                           gradients.w_gate, gradients.b_gate));
  }
  // Only now: the workspace of the partial sums is that of the gathered input.
  void* const partial = input_.Partial(dx);
  SP_RETURN_IF_ERROR(InputTerm(stream, up_, weights.w_up, false, partial));
  if (gated()) {
    SP_RETURN_IF_ERROR(InputTerm(stream, gate_, weights.w_gate, true, partial));
  }
  return input_.Leave(stream, dx);
}

Cost ParallelMlpForwardCost(int ranks, const ParallelMlpConfig& config,
                            const CollectiveFamily& collectives) {
  return EnterCost(ranks, Outside(config), collectives) +
         LeaveCost(ranks, Outside(config), collectives);
}

Cost ParallelMlpBackwardCost(int ranks, const ParallelMlpConfig& config,
                             const CollectiveFamily& collectives) {
  const Cost enter = EnterCost(ranks, Outside(config), collectives);
  return enter + enter + LeaveCost(ranks, Outside(config), collectives);
}

MlpArithmetic ParallelMlpArithmetic(const ParallelMlpConfig& config,
                                    const Arithmetic& summed) {
  Arithmetic local = summed;
  local.partials = 1;
  MlpArithmetic a = {
      .up = local, .down = summed, .da = local, .dx = summed, .dw = local};
  // The term of the up part is rounded before that of the gate is added to it.
  if (config.activation == Activation::kSwiGlu && summed.partials > 1) {
    a.dx.wire_roundings = summed.WireRoundings() + 1;
  }
  return a;
}

}  // namespace shardproof
