// Attention in parallel over heads: every rank has all tokens of its own heads.
//
// Contract, for rank r of P with the query heads h_r and KV heads g_r of
// head_share.h, S sequences of n tokens:
//
//     forward    O, lse of the heads h_r from Q of h_r and K, V of g_r
//     backward   dQ of h_r; dK, dV of g_r, where those of a KV head that several
//                ranks hold are summed over these ranks, in the accumulator's
//                type, and rounded behind the sum
//
//                a rank sends
//     forward    nothing
//     backward   nothing where KV heads are a multiple of ranks; else one
//                all_reduce of 2 S n d numbers of the accumulator's type among
//                the holders of each shared KV head, of dK and dV together
//
// A KV head that several ranks hold has the same K and V on each of them, and
// after Backward the same dK and dV. This is what is inside a tensor-parallel
// attention block, whose projections are cut the same way
// (layers/attention_block/attention_block.h).
//
// Refused: more ranks than query heads, since a head is not cut (a ring inside
// of each head's ranks would do that); a layout other than contiguous, since no
// tokens are dealt.
//
//     SP_ASSIGN_OR_RETURN(HeadParallelAttention attention,
//         HeadParallelAttention::Create(comm,
//             {.tokens = 8192, .heads = 32, .kv_heads = 8, .head_dim = 128,
//              .visibility = {.causal = true}}));
//     SP_RETURN_IF_ERROR(attention.Forward({q, k, v, o, lse}));
//
// Sources: Shoeybi et al., Megatron-LM, arXiv:1909.08053, section 3; Ainslie et
// al., arXiv:2305.13245 (grouped queries).
#ifndef SHARDPROOF_ATTENTION_HEAD_PARALLEL_HEAD_PARALLEL_H_
#define SHARDPROOF_ATTENTION_HEAD_PARALLEL_HEAD_PARALLEL_H_

#include <cstdint>
#include <memory>

#include "attention/sharded/sharded_attention.h"
#include "collectives/communicator.h"
#include "collectives/device.h"
#include "collectives/traffic.h"
#include "layers/attention_block/head_share.h"
#include "layers/tensor_parallel/collective_family.h"
#include "reference/status.h"

namespace shardproof {

class HeadParallelAttention {
 public:
  // Collective; the same error on every rank: those of CheckShardedAttention,
  // kInvalidArgument for what is refused, kOutOfMemory. All memory that is ever
  // needed is asked for here.
  static StatusOr<HeadParallelAttention> Create(
      const Communicator& comm, const ShardedAttentionConfig& config,
      const CollectiveFamily& collectives = kAutoCollectives,
      const AttentionKernels& kernels = {});

  // Local.
  Status Forward(const AttentionForwardArgs& args,
                 const Stream& stream = Stream::Inline()) const;
  // Collective among the ranks that share a KV head. Errors are those of the
  // transport.
  Status Backward(const AttentionBackwardArgs& args,
                  const Stream& stream = Stream::Inline()) const;

  const HeadShare& share() const;
  // What it works in, on this rank, in bytes.
  int64_t working_bytes() const;

 private:
  class State;
  explicit HeadParallelAttention(std::shared_ptr<State> state);
  std::shared_ptr<State> state_;
};

// What the backward pass sends; the forward pass sends nothing. The family must
// have costs.
Cost HeadParallelBackwardCost(int ranks, const ShardedAttentionConfig& config,
                              const CollectiveFamily& collectives);

}  // namespace shardproof

#endif  // SHARDPROOF_ATTENTION_HEAD_PARALLEL_HEAD_PARALLEL_H_
