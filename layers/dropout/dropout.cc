#include "layers/dropout/dropout.h"

#include <string>

#include "collectives/chunks.h"
#include "layers/tensor_parallel/parallel_region.h"

namespace shardproof {

ParallelDropout::ParallelDropout(const ParallelDropoutConfig& config,
                                 int64_t begin, int64_t local_units)
    : local_units_(local_units),
      part_{.dtype = config.dtype,
            .rows = config.outer,
            .columns = local_units * config.inner,
            .first = config.first + static_cast<uint64_t>(begin * config.inner),
            .row_stride = config.units * config.inner,
            .probability = config.probability,
            .seed = config.seed} {}

StatusOr<ParallelDropout> ParallelDropout::Create(
    const Communicator& comm, const ParallelDropoutConfig& config) {
  const std::string text = fmt::format(
      "dropout of {} x {} x {}, {}, p {}, seed {}, from {}{}", config.outer,
      config.units, config.inner, Name(config.dtype), config.probability,
      config.seed, config.first, config.sharded ? ", sharded" : "");
  SP_RETURN_IF_ERROR(AgreeOnLayer(comm, text));
  if (config.outer < 0 || config.units < 0 || config.inner < 0) {
    return InvalidArgument("{}: a size is negative", text);
  }
  if (!(config.probability >= 0 && config.probability < 1)) {
    return InvalidArgument("{}: p must be in [0, 1)", text);
  }
  SP_RETURN_IF_ERROR(CheckLayerType(config.dtype).WithContext(text));
  const Chunk own = config.sharded
                        ? BalancedChunk(config.units, comm.size(), comm.rank())
                        : Chunk{0, config.units};
  return ParallelDropout(config, own.begin, own.count);
}

Status ParallelDropout::Forward(const ForwardArgs& args,
                                const Stream& stream) const {
  DropoutArgs all = part_;
  all.call = args.call;
  all.x = args.x;
  all.y = args.y;
  return Dropout(stream, all);
}

Status ParallelDropout::Backward(const BackwardArgs& args,
                                 const Stream& stream) const {
  return Forward({.x = args.dy, .y = args.dx, .call = args.call}, stream);
}

}  // namespace shardproof
