#include "attention/ring/ring.h"

#include <utility>

namespace shardproof {

StatusOr<RingAttention> RingAttention::Create(
    const Communicator& comm, const ShardedAttentionConfig& config,
    RingMode mode, const AttentionKernels& kernels) {
  SP_RETURN_IF_ERROR(CheckShardedSequence(comm, "ring", config, comm.size()));
  SP_ASSIGN_OR_RETURN(
      RotatingAttention rotation,
      RotatingAttention::Create(comm, RotationOver(comm.size(), config, mode),
                                kernels));
  return RingAttention(std::move(rotation));
}

Status RingAttention::Forward(const AttentionForwardArgs& args,
                              const Stream& stream) const {
  return stream.Run([r = rotation_, args] { return r.Forward(args); });
}
Status RingAttention::Backward(const AttentionBackwardArgs& args,
                               const Stream& stream) const {
  return stream.Run([r = rotation_, args] { return r.Backward(args); });
}

Cost RingForwardCost(int ranks, const ShardedAttentionConfig& config) {
  return RotationForwardCost(
      RotationOver(ranks, config, RingMode::kOverlapped));
}
Cost RingBackwardCost(int ranks, const ShardedAttentionConfig& config) {
  return RotationBackwardCost(
      RotationOver(ranks, config, RingMode::kOverlapped));
}
int64_t RingMerges(int ranks, const ShardedAttentionConfig& config) {
  return RotationMerges(RotationOver(ranks, config, RingMode::kOverlapped));
}

}  // namespace shardproof
