#include "layers/row_parallel_linear/row_parallel_linear.h"

#include "collectives/chunks.h"
#include "layers/kernels/activation.h"
#include "layers/kernels/gemm.h"
#include "layers/tensor_parallel/agree.h"

namespace shardproof {
namespace {

RegionShape OutputShape(const ParallelLinearConfig& config) {
  return {.tokens = config.tokens,
          .width = config.out,
          .dtype = config.dtype,
          .sequence_parallel = config.sequence_parallel};
}

FeatureShape InputShape(const ParallelLinearConfig& config) {
  return {.tokens = config.tokens, .width = config.in, .dtype = config.dtype};
}

}  // namespace

StatusOr<RowParallelLinear> RowParallelLinear::Create(
    const Communicator& comm, const ParallelLinearConfig& config,
    const CollectiveFamily& collectives) {
  SP_RETURN_IF_ERROR(CheckParallelLinear(comm, "row_parallel_linear", config));
  const auto make = [&]() -> StatusOr<RowParallelLinear> {
    SP_ASSIGN_OR_RETURN(
        ParallelRegion output,
        ParallelRegion::Create(comm, OutputShape(config), collectives));
    FeatureSplit input;
    if (!config.input_is_parallel) {
      SP_ASSIGN_OR_RETURN(
          input, FeatureSplit::Create(comm, InputShape(config), collectives));
    }
    return RowParallelLinear(
        config, BalancedChunk(config.in, comm.size(), comm.rank()).count,
        std::move(input), std::move(output));
  };
  StatusOr<RowParallelLinear> layer = make();
  SP_RETURN_IF_ERROR(AgreeOnStatus(comm, layer.status()));
  return layer;
}

Status RowParallelLinear::Forward(const ForwardArgs& args,
                                  const Stream& stream) const {
  const DType dtype = config_.dtype;
  const void* x = args.x;
  if (!config_.input_is_parallel) {
    SP_ASSIGN_OR_RETURN(x, input_.Slice(stream, args.x));
  }
  SP_RETURN_IF_ERROR(Gemm(
      stream,
      {.a = {dtype, {config_.tokens, local_in_}, x},
       .b = {dtype, {config_.out, local_in_}, args.w},
       .transpose_b = true,
       .c = {dtype, {config_.tokens, config_.out}, output_.Partial(args.y)}}));
  SP_RETURN_IF_ERROR(output_.Leave(stream, args.y));
  if (!config_.bias) return OkStatus();
  return AddBias(stream, dtype, output_.local_tokens(), config_.out, args.b,
                 args.y);
}

Status RowParallelLinear::Backward(const BackwardArgs& args,
                                   const Stream& stream) const {
  const DType dtype = config_.dtype;
  SP_ASSIGN_OR_RETURN(const void* const all, output_.Enter(stream, args.dy));
  const ConstTensorView dy(dtype, {config_.tokens, config_.out}, all);
  const void* x = args.x;
  void* dx = args.dx;
  if (!config_.input_is_parallel) {
    SP_ASSIGN_OR_RETURN(x, input_.Slice(stream, args.x));
    dx = input_.Part(args.dx);
  }
  SP_RETURN_IF_ERROR(
      Gemm(stream, {.a = dy,
                    .transpose_a = true,
                    .b = {dtype, {config_.tokens, local_in_}, x},
                    .c = {dtype, {config_.out, local_in_}, args.dw}}));
  // Only now: dx is made in the workspace of x.
  SP_RETURN_IF_ERROR(
      Gemm(stream, {.a = dy,
                    .b = {dtype, {config_.out, local_in_}, args.w},
                    .c = {dtype, {config_.tokens, local_in_}, dx}}));
  if (!config_.input_is_parallel) {
    SP_RETURN_IF_ERROR(input_.Gather(stream, args.dx));
  }
  if (!config_.bias) return OkStatus();
  return ColumnSum(stream, dtype, config_.tokens, config_.out, all, args.db);
}

Cost RowParallelLinearForwardCost(int ranks, const ParallelLinearConfig& config,
                                  const CollectiveFamily& collectives) {
  return LeaveCost(ranks, OutputShape(config), collectives);
}

Cost RowParallelLinearBackwardCost(int ranks,
                                   const ParallelLinearConfig& config,
                                   const CollectiveFamily& collectives) {
  Cost cost = EnterCost(ranks, OutputShape(config), collectives);
  if (!config.input_is_parallel) {
    cost += GatherCost(ranks, InputShape(config), collectives);
  }
  return cost;
}

}  // namespace shardproof
