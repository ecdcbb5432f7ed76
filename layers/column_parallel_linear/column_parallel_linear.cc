#include "layers/column_parallel_linear/column_parallel_linear.h"

#include <utility>

#include "collectives/chunks.h"
#include "layers/kernels/activation.h"
#include "layers/kernels/gemm.h"
#include "layers/tensor_parallel/agree.h"

namespace shardproof {
namespace {

RegionShape InputShape(const ParallelLinearConfig& config) {
  return {.tokens = config.tokens,
          .width = config.in,
          .dtype = config.dtype,
          .sequence_parallel = config.sequence_parallel};
}

FeatureShape OutputShape(const ParallelLinearConfig& config) {
  return {.tokens = config.tokens, .width = config.out, .dtype = config.dtype};
}

}  // namespace

StatusOr<ColumnParallelLinear> ColumnParallelLinear::Create(
    const Communicator& comm, const ParallelLinearConfig& config,
    const CollectiveFamily& collectives) {
  SP_RETURN_IF_ERROR(
      CheckParallelLinear(comm, "column_parallel_linear", config));
  const auto make = [&]() -> StatusOr<ColumnParallelLinear> {
    SP_ASSIGN_OR_RETURN(
        ParallelRegion input,
        ParallelRegion::Create(comm, InputShape(config), collectives));
    FeatureSplit output;
    if (config.gather_output) {
      SP_ASSIGN_OR_RETURN(
          output, FeatureSplit::Create(comm, OutputShape(config), collectives));
    }
    return ColumnParallelLinear(
        config, BalancedChunk(config.out, comm.size(), comm.rank()).count,
        std::move(input), std::move(output));
  };
  StatusOr<ColumnParallelLinear> layer = make();
  SP_RETURN_IF_ERROR(AgreeOnStatus(comm, layer.status()));
  return layer;
}

Status ColumnParallelLinear::Forward(const ForwardArgs& args,
                                     const Stream& stream) const {
  const DType dtype = config_.dtype;
  SP_ASSIGN_OR_RETURN(const void* const x, input_.Enter(stream, args.x));
  void* const y = config_.gather_output ? output_.Part(args.y) : args.y;
  SP_RETURN_IF_ERROR(
      Gemm(stream, {.a = {dtype, {config_.tokens, config_.in}, x},
                    .b = {dtype, {local_out_, config_.in}, args.w},
                    .transpose_b = true,
                    .c = {dtype, {config_.tokens, local_out_}, y},
                    .bias = config_.bias ? args.b : nullptr}));
  return config_.gather_output ? output_.Gather(stream, args.y) : OkStatus();
}

Status ColumnParallelLinear::Backward(const BackwardArgs& args,
                                      const Stream& stream) const {
  const DType dtype = config_.dtype;
  const void* own_dy = args.dy;
  if (config_.gather_output) {
    SP_ASSIGN_OR_RETURN(own_dy, output_.Slice(stream, args.dy));
  }
  const ConstTensorView dy(dtype, {config_.tokens, local_out_}, own_dy);
  SP_ASSIGN_OR_RETURN(const void* const x, input_.Enter(stream, args.x));
  SP_RETURN_IF_ERROR(
      Gemm(stream, {.a = dy,
                    .transpose_a = true,
                    .b = {dtype, {config_.tokens, config_.in}, x},
                    .c = {dtype, {local_out_, config_.in}, args.dw}}));
  if (config_.bias) {
    SP_RETURN_IF_ERROR(
        ColumnSum(stream, dtype, config_.tokens, local_out_, own_dy, args.db));
  }
  // Only now: the workspace of the partial sums is that of the gathered input.
  SP_RETURN_IF_ERROR(Gemm(
      stream,
      {.a = dy,
       .b = {dtype, {local_out_, config_.in}, args.w},
       .c = {dtype, {config_.tokens, config_.in}, input_.Partial(args.dx)}}));
  return input_.Leave(stream, args.dx);
}

Cost ColumnParallelLinearForwardCost(int ranks,
                                     const ParallelLinearConfig& config,
                                     const CollectiveFamily& collectives) {
  Cost cost = EnterCost(ranks, InputShape(config), collectives);
  if (config.gather_output) {
    cost += GatherCost(ranks, OutputShape(config), collectives);
  }
  return cost;
}

Cost ColumnParallelLinearBackwardCost(int ranks,
                                      const ParallelLinearConfig& config,
                                      const CollectiveFamily& collectives) {
  return EnterCost(ranks, InputShape(config), collectives) +
         LeaveCost(ranks, InputShape(config), collectives);
}

}  // namespace shardproof
