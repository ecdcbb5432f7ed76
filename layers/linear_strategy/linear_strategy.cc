#include "layers/linear_strategy/linear_strategy.h"

#include <string>

#include "collectives/chunks.h"
#include "layers/kernels/activation.h"
#include "layers/kernels/gemm.h"
#include "layers/tensor_parallel/agree.h"
#include "layers/tensor_parallel/parallel_region.h"

namespace shardproof {
namespace {

// What travels.
FeatureShape SentShape(const StrategyLinearConfig& config) {
  return {.tokens = config.tokens,
          .width = config.strategy == LinearStrategy::kGather ? config.in
                                                              : config.out,
          .dtype = config.dtype};
}

}  // namespace

double LinearCrossover(const LinearRates& rates) {
  return rates.training ? 1 : 1 + rates.gamma / rates.beta;
}

LinearStrategy ChooseLinearStrategy(int64_t in, int64_t out,
                                    const LinearRates& rates) {
  return static_cast<double>(in) <=
                 LinearCrossover(rates) * static_cast<double>(out)
             ? LinearStrategy::kGather
             : LinearStrategy::kScatter;
}

StatusOr<StrategyLinear> StrategyLinear::Create(
    const Communicator& comm, const StrategyLinearConfig& config,
    const CollectiveFamily& collectives) {
  const std::string text = fmt::format(
      "linear layer of {} tokens, {} to {}, {}{}, that {}", config.tokens,
      config.in, config.out, Name(config.dtype), config.bias ? ", bias" : "",
      config.strategy == LinearStrategy::kGather ? "gathers its inputs"
                                                 : "scatters its outputs");
  SP_RETURN_IF_ERROR(AgreeOnLayer(comm, text));
  if (config.tokens < 0 || config.in < 0 || config.out < 0) {
    return InvalidArgument("{}: a size is negative", text);
  }
  SP_RETURN_IF_ERROR(CheckLayerType(config.dtype).WithContext(text));
  StrategyLinear layer;
  layer.config_ = config;
  layer.local_in_ = BalancedChunk(config.in, comm.size(), comm.rank()).count;
  layer.local_out_ = BalancedChunk(config.out, comm.size(), comm.rank()).count;
  const auto allocate = [&]() -> Status {
    const FeatureShape sent = SentShape(config);
    SP_ASSIGN_OR_RETURN(layer.split_,
                        FeatureSplit::Create(comm, sent, collectives,
                                             FeatureSplit::Parts::kElsewhere));
    SP_ASSIGN_OR_RETURN(layer.whole_,
                        comm.Allocate(static_cast<size_t>(
                            sent.tokens * sent.width * SizeOf(sent.dtype))));
    return OkStatus();
  };
  SP_RETURN_IF_ERROR(AgreeOnStatus(comm, allocate()));
  return layer;
}

Status StrategyLinear::Forward(const ForwardArgs& args,
                               const Stream& stream) const {
  SP_RETURN_IF_ERROR(RunForward(args, stream));
  forward_done_ = true;
  return OkStatus();
}

Status StrategyLinear::RunForward(const ForwardArgs& args,
                                  const Stream& stream) const {
  const auto& [tokens, in, out, dtype, bias, strategy] = config_;
  if (gathers()) {
    SP_RETURN_IF_ERROR(split_.GatherFrom(stream, args.x, whole_.data()));
    return Gemm(stream, {.a = {dtype, {tokens, in}, whole_.data()},
                         .b = {dtype, {local_out_, in}, args.w},
                         .transpose_b = true,
                         .c = {dtype, {tokens, local_out_}, args.y},
                         .bias = bias ? args.b : nullptr});
  }
  SP_RETURN_IF_ERROR(
      Gemm(stream, {.a = {dtype, {tokens, local_in_}, args.x},
                    .b = {dtype, {out, local_in_}, args.w},
                    .transpose_b = true,
                    .c = {dtype, {tokens, out}, whole_.data()}}));
  SP_RETURN_IF_ERROR(split_.Scatter(stream, whole_.data(), args.y));
  if (!bias) return OkStatus();
  return AddBias(stream, dtype, tokens, local_out_, args.b, args.y);
}

Status StrategyLinear::Backward(const BackwardArgs& args,
                                const Stream& stream) const {
  if (!std::exchange(forward_done_, false)) {
    return InvalidArgument("a backward pass without a forward pass before it");
  }
  const auto& [tokens, in, out, dtype, bias, strategy] = config_;
  if (bias) {
    SP_RETURN_IF_ERROR(
        ColumnSum(stream, dtype, tokens, local_out_, args.dy, args.db));
  }
  if (!gathers()) {
    SP_RETURN_IF_ERROR(split_.GatherFrom(stream, args.dy, whole_.data()));
  }
  // Rows of dw and of the operand are outputs, its columns inputs.
  const int64_t rows = gathers() ? local_out_ : out;
  const int64_t columns = gathers() ? in : local_in_;
  const ConstTensorView dy(dtype, {tokens, rows},
                           gathers() ? args.dy : whole_.data());
  SP_RETURN_IF_ERROR(
      Gemm(stream,
           {.a = dy,
            .transpose_a = true,
            .b = {dtype, {tokens, columns}, gathers() ? whole_.data() : args.x},
            .c = {dtype, {rows, columns}, args.dw}}));
  // Only now: this rank's term of dx is made where X was.
  SP_RETURN_IF_ERROR(Gemm(
      stream,
      {.a = dy,
       .b = {dtype, {rows, columns}, args.w},
       .c = {dtype, {tokens, columns}, gathers() ? whole_.data() : args.dx}}));
  return gathers() ? split_.Scatter(stream, whole_.data(), args.dx)
                   : OkStatus();
}

Cost StrategyLinearForwardCost(int ranks, const StrategyLinearConfig& config,
                               const CollectiveFamily& collectives) {
  return config.strategy == LinearStrategy::kGather
             ? GatherCost(ranks, SentShape(config), collectives)
             : ScatterCost(ranks, SentShape(config), collectives);
}

Cost StrategyLinearBackwardCost(int ranks, const StrategyLinearConfig& config,
                                const CollectiveFamily& collectives) {
  return config.strategy == LinearStrategy::kGather
             ? ScatterCost(ranks, SentShape(config), collectives)
             : GatherCost(ranks, SentShape(config), collectives);
}

}  // namespace shardproof
