#include "attention/double_ring/double_ring.h"

#include <fmt/format.h>

#include <utility>

#include "layers/tensor_parallel/parallel_region.h"

namespace shardproof {
namespace {

RotationConfig RotationOf(int ranks, const DoubleRingConfig& config,
                          RingMode mode) {
  RotationConfig rotation = RotationOver(ranks, config.attention, mode);
  rotation.inner = config.inner;
  return rotation;
}

}  // namespace

StatusOr<DoubleRingAttention> DoubleRingAttention::Create(
    const Communicator& comm, const DoubleRingConfig& config, RingMode mode,
    const AttentionKernels& kernels) {
  SP_RETURN_IF_ERROR(
      CheckShardedSequence(comm, "double-ring", config.attention, comm.size()));
  SP_RETURN_IF_ERROR(
      AgreeOnLayer(comm, fmt::format("inner rings of {} ranks", config.inner)));
  if (config.inner < 1 || comm.size() % config.inner != 0) {
    return InvalidArgument("{} ranks are not rings of {}", comm.size(),
                           config.inner);
  }
  SP_ASSIGN_OR_RETURN(
      RotatingAttention rotation,
      RotatingAttention::Create(comm, RotationOf(comm.size(), config, mode),
                                kernels));
  return DoubleRingAttention(std::move(rotation));
}

Status DoubleRingAttention::Forward(const AttentionForwardArgs& args,
                                    const Stream& stream) const {
  return stream.Run([r = rotation_, args] { return r.Forward(args); });
}
Status DoubleRingAttention::Backward(const AttentionBackwardArgs& args,
                                     const Stream& stream) const {
  return stream.Run([r = rotation_, args] { return r.Backward(args); });
}

Cost DoubleRingForwardCost(int ranks, const DoubleRingConfig& config) {
  return RotationForwardCost(RotationOf(ranks, config, RingMode::kOverlapped));
}
Cost DoubleRingBackwardCost(int ranks, const DoubleRingConfig& config) {
  return RotationBackwardCost(RotationOf(ranks, config, RingMode::kOverlapped));
}
int64_t DoubleRingMerges(int ranks, const DoubleRingConfig& config) {
  return RotationMerges(RotationOf(ranks, config, RingMode::kOverlapped));
}

}  // namespace shardproof
