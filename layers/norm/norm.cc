#include "layers/norm/norm.h"

#include <cmath>
#include <string>

#include "collectives/chunks.h"
#include "collectives/direct/queue.h"
#include "layers/tensor_parallel/agree.h"
#include "layers/tensor_parallel/parallel_region.h"

namespace shardproof {
namespace {

Status Check(const Communicator& comm, const ParallelNormConfig& config) {
  const std::string text = fmt::format(
      "{} of {} tokens of {}, epsilon {}, {}{}{}{}", Name(config.kind),
      config.tokens, config.hidden, config.epsilon, Name(config.dtype),
      config.bias ? ", bias" : "", config.residual ? ", residual" : "",
      config.sequence_parallel ? ", sequence-parallel" : "");
  SP_RETURN_IF_ERROR(AgreeOnLayer(comm, text));
  if (config.tokens < 0 || config.hidden < 0) {
    return InvalidArgument("{}: a size is negative", text);
  }
  SP_RETURN_IF_ERROR(CheckLayerType(config.dtype).WithContext(text));
  const double epsilon = Round(Accumulator(config.dtype), config.epsilon);
  if (!(epsilon > 0) || !std::isfinite(epsilon)) {
    return InvalidArgument("{}: epsilon must be a positive number of {}", text,
                           Name(Accumulator(config.dtype)));
  }
  return OkStatus();
}

bool SumsOverRanks(int ranks, const ParallelNormConfig& config) {
  return config.sequence_parallel && ranks > 1;
}

int64_t Sums(const ParallelNormConfig& config) {
  return config.bias ? 2 * config.hidden : config.hidden;
}

}  // namespace

ParallelNorm::ParallelNorm(const Communicator& comm,
                           const ParallelNormConfig& config,
                           const CollectiveFamily& collectives)
    : comm_(comm),
      config_(config),
      collectives_(collectives),
      rows_{
          .dtype = config.dtype,
          .rows =
              SumsOverRanks(comm.size(), config)
                  ? BalancedChunk(config.tokens, comm.size(), comm.rank()).count
                  : config.tokens,
          .columns = config.hidden,
          .centred = config.kind == NormKind::kLayerNorm,
          .epsilon = config.epsilon} {}

StatusOr<ParallelNorm> ParallelNorm::Create(
    const Communicator& comm, const ParallelNormConfig& config,
    const CollectiveFamily& collectives) {
  SP_RETURN_IF_ERROR(Check(comm, config));
  ParallelNorm norm(comm, config, collectives);
  const auto allocate = [&]() -> Status {
    const DType sums = Accumulator(config.dtype);
    for (Tensor* tensor : {&norm.mean_, &norm.inverse_}) {
      SP_ASSIGN_OR_RETURN(*tensor, Tensor::Create(sums, {norm.rows_.rows}));
    }
    SP_ASSIGN_OR_RETURN(
        norm.sums_,
        comm.Allocate(static_cast<size_t>(Sums(config) * SizeOf(sums))));
    return OkStatus();
  };
  SP_RETURN_IF_ERROR(AgreeOnStatus(comm, allocate()));
  return norm;
}

Status ParallelNorm::Forward(const ForwardArgs& args, const Stream& stream) {
  return Normalize(stream, rows_,
                   {.x = args.x,
                    .residual = config_.residual ? args.residual : nullptr,
                    .weight = args.weight,
                    .bias = config_.bias ? args.bias : nullptr,
                    .z = args.z,
                    .y = args.y,
                    .mean = mean_.raw(),
                    .inverse = inverse_.raw()});
}

Status ParallelNorm::Backward(const BackwardArgs& args, const Stream& stream) {
  const DType dtype = config_.dtype, summed = Accumulator(dtype);
  void* const dweight = sums_.data();
  void* const dbias =
      config_.bias ? At(dweight, summed, config_.hidden) : nullptr;
  SP_RETURN_IF_ERROR(NormalizeBackward(stream, rows_,
                                       {.z = args.z,
                                        .weight = args.weight,
                                        .dy = args.dy,
                                        .dz = args.dz,
                                        .mean = mean_.raw(),
                                        .inverse = inverse_.raw(),
                                        .dx = args.dx,
                                        .dweight = dweight,
                                        .dbias = dbias}));
  if (SumsOverRanks(comm_.size(), config_)) {
    SP_RETURN_IF_ERROR(direct::Enqueue<AllReduceArgs>(stream, comm_,
                                                      {.send = dweight,
                                                       .recv = dweight,
                                                       .count = Sums(config_),
                                                       .dtype = summed},
                                                      collectives_.all_reduce));
  }
  SP_RETURN_IF_ERROR(
      RoundSums(stream, dtype, config_.hidden, dweight, args.dweight));
  if (!config_.bias) return OkStatus();
  return RoundSums(stream, dtype, config_.hidden, dbias, args.dbias);
}

Cost ParallelNormBackwardCost(int ranks, const ParallelNormConfig& config,
                              const CollectiveFamily& collectives) {
  if (!SumsOverRanks(ranks, config)) return {};
  // What is sent lies in the layer's memory, wherever the caller's is.
  return collectives.all_reduce_cost(
      ranks, Sums(config), Accumulator(config.dtype), Memory::kShared);
}

NormArithmetic ParallelNormArithmetic(const ParallelNormConfig& config,
                                      const Arithmetic& summed) {
  NormArithmetic a = {.local = summed, .dw = summed};
  a.local.partials = 1;
  if (!config.sequence_parallel) a.dw.partials = 1;
  // Whatever the layer's type, sums travel in the type that they are made in.
  a.dw.wire = a.dw.reduce = a.dw.accumulate;
  return a;
}

}  // namespace shardproof
