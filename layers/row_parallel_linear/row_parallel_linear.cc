#include "layers/row_parallel_linear/row_parallel_linear.h"

#include "collectives/chunks.h"
#include "layers/kernels/activation.h"
#include "layers/kernels/gemm.h"

namespace shardproof {
namespace {

RegionShape OutputShape(const ParallelLinearConfig& config) {
  return {.tokens = config.tokens,
          .width = config.out,
          .dtype = config.dtype,
          .sequence_parallel = config.sequence_parallel};
}

}  // namespace

StatusOr<RowParallelLinear> RowParallelLinear::Create(
    const Communicator& comm, const ParallelLinearConfig& config,
    const CollectiveFamily& collectives) {
  SP_RETURN_IF_ERROR(CheckParallelLinear(comm, "row_parallel_linear", config));
  SP_ASSIGN_OR_RETURN(
      ParallelRegion output,
      ParallelRegion::Create(comm, OutputShape(config), collectives));
  const int64_t local_in =
      BalancedChunk(config.in, comm.size(), comm.rank()).count;
  return RowParallelLinear(config, local_in, std::move(output));
}

Status RowParallelLinear::Forward(const ForwardArgs& args,
                                  const Stream& stream) const {
  const DType dtype = config_.dtype;
  SP_RETURN_IF_ERROR(Gemm(
      stream,
      {.a = {dtype, {config_.tokens, local_in_}, args.x},
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
  SP_RETURN_IF_ERROR(
      Gemm(stream, {.a = dy,
                    .b = {dtype, {config_.out, local_in_}, args.w},
                    .c = {dtype, {config_.tokens, local_in_}, args.dx}}));
  SP_RETURN_IF_ERROR(
      Gemm(stream, {.a = dy,
                    .transpose_a = true,
                    .b = {dtype, {config_.tokens, local_in_}, args.x},
                    .c = {dtype, {config_.out, local_in_}, args.dw}}));
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
  return EnterCost(ranks, OutputShape(config), collectives);
}

}  // namespace shardproof
