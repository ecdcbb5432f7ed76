#include "layers/column_parallel_linear/column_parallel_linear.h"

#include <utility>

#include "collectives/chunks.h"
#include "layers/kernels/activation.h"
#include "layers/kernels/gemm.h"

namespace shardproof {
namespace {

RegionShape InputShape(const ParallelLinearConfig& config) {
  return {.tokens = config.tokens,
          .width = config.in,
          .dtype = config.dtype,
          .sequence_parallel = config.sequence_parallel};
}

}  // namespace

StatusOr<ColumnParallelLinear> ColumnParallelLinear::Create(
    const Communicator& comm, const ParallelLinearConfig& config,
    const CollectiveFamily& collectives) {
  SP_RETURN_IF_ERROR(
      CheckParallelLinear(comm, "column_parallel_linear", config));
  SP_ASSIGN_OR_RETURN(
      ParallelRegion input,
      ParallelRegion::Create(comm, InputShape(config), collectives));
  const int64_t local_out =
      BalancedChunk(config.out, comm.size(), comm.rank()).count;
  return ColumnParallelLinear(config, local_out, std::move(input));
}

Status ColumnParallelLinear::Forward(const ForwardArgs& args,
                                     const Stream& stream) const {
  const DType dtype = config_.dtype;
  SP_ASSIGN_OR_RETURN(const void* const x, input_.Enter(stream, args.x));
  return Gemm(stream, {.a = {dtype, {config_.tokens, config_.in}, x},
                       .b = {dtype, {local_out_, config_.in}, args.w},
                       .transpose_b = true,
                       .c = {dtype, {config_.tokens, local_out_}, args.y},
                       .bias = config_.bias ? args.b : nullptr});
}

Status ColumnParallelLinear::Backward(const BackwardArgs& args,
                                      const Stream& stream) const {
  const DType dtype = config_.dtype;
  const ConstTensorView dy(dtype, {config_.tokens, local_out_}, args.dy);
  SP_ASSIGN_OR_RETURN(const void* const x, input_.Enter(stream, args.x));
  SP_RETURN_IF_ERROR(
      Gemm(stream, {.a = dy,
                    .transpose_a = true,
                    .b = {dtype, {config_.tokens, config_.in}, x},
                    .c = {dtype, {local_out_, config_.in}, args.dw}}));
  if (config_.bias) {
    SP_RETURN_IF_ERROR(
        ColumnSum(stream, dtype, config_.tokens, local_out_, args.dy, args.db));
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
  return EnterCost(ranks, InputShape(config), collectives);
}

Cost ColumnParallelLinearBackwardCost(int ranks,
                                      const ParallelLinearConfig& config,
                                      const CollectiveFamily& collectives) {
  return EnterCost(ranks, InputShape(config), collectives) +
         LeaveCost(ranks, InputShape(config), collectives);
}

}  // namespace shardproof
