// Ring attention: every rank keeps the queries of its tokens, and the keys and
// values travel around the ring, rank by rank.
//
// Contract, for rank r of P with the tokens of RunsOf(layout, r), all heads:
//
//     forward    step t = 0 .. P - 1: O, lse of the rank's queries are merged
//                with those of the keys of rank r - t, which are sent on to
//                rank r + 1 meanwhile
//     backward   the same steps; dQ stays, dK and dV travel with their block,
//                are added to on every rank and arrive at its owner after P hops
//
//                  a rank sends                              messages
//     forward      K and V of P - 1 ranks                    2 (P - 1)
//     backward     the same again, and dK and dV of P ranks  2 (P - 1) + 2 P
//                  in the accumulator's type
//
// that is 2 S n G d e (P - 1) / P bytes per rank forward. Empty blocks are not
// sent. dK and dV are summed in the order of the ring, in the accumulator's
// type, and rounded by their owner.
//
// With causal attention a rank has nothing to compute in some steps and waits
// for those who do: what a ring can reach at best is RingEfficiency (layout.h),
// P / (2P - 1) for contiguous tokens, and close to 1 for striped and zigzag
// ones. Blocks of which nobody on the way sees anything travel all the same.
//
// The modes are those of sharded/rotating_attention.h, which this is a face of.
//
//     SP_ASSIGN_OR_RETURN(RingAttention ring,
//         RingAttention::Create(comm, {.tokens = 8192, .heads = 32,
//                                      .kv_heads = 8, .head_dim = 128,
//                                      .layout = SequenceLayout::kZigzag,
//                                      .visibility = {.causal = true}}));
//     SP_RETURN_IF_ERROR(ring.Forward({q, k, v, o, lse}));
//
// Sources: Liu et al., arXiv:2310.01889; Brandon et al., arXiv:2311.09431
// (striped); Llama 3, arXiv:2407.21783 (zigzag).
#ifndef SHARDPROOF_ATTENTION_RING_RING_H_
#define SHARDPROOF_ATTENTION_RING_RING_H_

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

class RingAttention {
 public:
  // Collective; the same error on every rank: those of CheckShardedSequence,
  // kOutOfMemory, kUnavailable where no thread can be started. All memory that
  // is ever needed is asked for here.
  static StatusOr<RingAttention> Create(const Communicator& comm,
                                        const ShardedAttentionConfig& config,
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
  explicit RingAttention(RotatingAttention rotation)
      : rotation_(std::move(rotation)) {}
  RotatingAttention rotation_;
};

// What one pass sends.
Cost RingForwardCost(int ranks, const ShardedAttentionConfig& config);
Cost RingBackwardCost(int ranks, const ShardedAttentionConfig& config);
// How many partial results become one, at most.
int64_t RingMerges(int ranks, const ShardedAttentionConfig& config);

}  // namespace shardproof

#endif  // SHARDPROOF_ATTENTION_RING_RING_H_
