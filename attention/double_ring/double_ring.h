// Double-ring attention: rings of neighbours, and a ring of these rings, so that
// what crosses the slower links between them has a whole inner ring's time.
//
// Contract, for P ranks in inner rings of `inner` neighbours (ranks o inner + i):
// ring attention (ring/ring.h) with another order of the blocks; the same tokens
// on each rank, the same results, the same bytes. rotating_attention.h says who
// has whose keys when. Of K and V, inner - 1 of `inner` hops are between
// neighbours, and one crosses to the next inner ring:
//
//     between inner rings, per rank and pass    (P / inner - 1) blocks
//     a ring over the same links                P - 1 blocks on the ranks at the
//                                               border of a node
//
//     SP_ASSIGN_OR_RETURN(DoubleRingAttention ring,
//         DoubleRingAttention::Create(comm, {.attention = config, .inner = 8}));
//     SP_RETURN_IF_ERROR(ring.Forward({q, k, v, o, lse}));
//
// Source: Gu et al., LoongTrain, arXiv:2406.18485, section 4.3.
#ifndef SHARDPROOF_ATTENTION_DOUBLE_RING_DOUBLE_RING_H_
#define SHARDPROOF_ATTENTION_DOUBLE_RING_DOUBLE_RING_H_

#include <cstdint>
#include <span>
#include <utility>

#include "attention/sharded/rotating_attention.h"
#include "attention/sharded/sharded_attention.h"
#include "collectives/communicator.h"
#include "collectives/device.h"
#include "collectives/traffic.h"
#include "reference/status.h"

namespace shardproof {

struct DoubleRingConfig {
  ShardedAttentionConfig attention;
  int inner = 1;  // Ranks of an inner ring; divides all.
};

class DoubleRingAttention {
 public:
  // Collective; the same error on every rank: those of CheckShardedSequence,
  // kInvalidArgument for inner rings that do not divide the ranks,
  // kOutOfMemory, kUnavailable where no thread can be started. All memory that
  // is ever needed is asked for here.
  static StatusOr<DoubleRingAttention> Create(
      const Communicator& comm, const DoubleRingConfig& config,
      RingMode mode = RingMode::kOverlapped,
      const AttentionKernels& kernels = {});

  // Collective. Errors are those of the transport.
  Status Forward(const AttentionForwardArgs& args,
                 const Stream& stream = Stream::Inline()) const;
  Status Backward(const AttentionBackwardArgs& args,
                  const Stream& stream = Stream::Inline()) const;

  int64_t local_tokens() const { return rotation_.local_tokens(); }
  // What it works in, on this rank, in bytes.
  int64_t working_bytes() const { return rotation_.working_bytes(); }
  // Of the last pass; not while one is under way.
  std::span<const RingStep> steps() const { return rotation_.steps(); }

 private:
  explicit DoubleRingAttention(RotatingAttention rotation)
      : rotation_(std::move(rotation)) {}
  RotatingAttention rotation_;
};

// What one pass sends.
Cost DoubleRingForwardCost(int ranks, const DoubleRingConfig& config);
Cost DoubleRingBackwardCost(int ranks, const DoubleRingConfig& config);
// How many partial results become one, at most.
int64_t DoubleRingMerges(int ranks, const DoubleRingConfig& config);

}  // namespace shardproof

#endif  // SHARDPROOF_ATTENTION_DOUBLE_RING_DOUBLE_RING_H_
