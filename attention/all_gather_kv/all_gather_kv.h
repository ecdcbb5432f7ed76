// Attention with gathered keys: every rank keeps the queries of its tokens and
// gets the keys and values of all ranks in one all_gather.
//
// Contract, for rank r of P with the tokens of RunsOf(layout, r), all heads:
//
//     forward    K, V = all_gather of those of every rank
//                O, lse of the rank's queries over them
//     backward   K, V gathered again; dQ of the rank's queries;
//                dK, dV = the rank's tokens of the sum over ranks of what their
//                queries make of them, by reduce_scatter in the accumulator's
//                type, rounded behind the sum
//
//                a rank sends, by a ring                  collectives
//     forward    K and V of P - 1 ranks                   1 all_gather
//     backward   the same again, and P - 1 partial sums   1 all_gather,
//                of a rank's dK and dV in the             1 reduce_scatter
//                accumulator's type
//
// that is 2 S n G d e (P - 1) / P bytes per rank forward, as in a ring: K and V
// are packed and travel together, in half the messages. Nothing hides them: a
// rank computes when it has all keys. For that it computes at once, with keys in
// the order of the sequence however tokens are dealt: long tiles, and no partial
// results to be merged. With few KV heads the gathered keys are small beside the
// queries, which is when this is used.
//
// Memory grows with all n keys, not with n / P: a rank works in those of one
// layer, and for gradients in two such of the accumulator's type. So K and V are
// not kept from Forward to Backward, which would be those of every layer.
//
//     SP_ASSIGN_OR_RETURN(AllGatherKvAttention attention,
//         AllGatherKvAttention::Create(comm,
//             {.tokens = 8192, .heads = 32, .kv_heads = 8, .head_dim = 128,
//              .layout = SequenceLayout::kZigzag,
//              .visibility = {.causal = true}}));
//     SP_RETURN_IF_ERROR(attention.Forward({q, k, v, o, lse}));
//
// Source: Llama 3, arXiv:2407.21783, section 3.3.2.
#ifndef SHARDPROOF_ATTENTION_ALL_GATHER_KV_ALL_GATHER_KV_H_
#define SHARDPROOF_ATTENTION_ALL_GATHER_KV_ALL_GATHER_KV_H_

#include <cstdint>
#include <memory>

#include "attention/sharded/sharded_attention.h"
#include "collectives/communicator.h"
#include "collectives/device.h"
#include "collectives/traffic.h"
#include "layers/tensor_parallel/collective_family.h"
#include "reference/status.h"

namespace shardproof {

class AllGatherKvAttention {
 public:
  // Collective; the same error on every rank: those of CheckShardedSequence,
  // kOutOfMemory. All memory that is ever needed is asked for here.
  static StatusOr<AllGatherKvAttention> Create(
      const Communicator& comm, const ShardedAttentionConfig& config,
      const CollectiveFamily& collectives = kAutoCollectives,
      const AttentionKernels& kernels = {});

  // Collective. Errors are those of the transport.
  Status Forward(const AttentionForwardArgs& args,
                 const Stream& stream = Stream::Inline()) const;
  Status Backward(const AttentionBackwardArgs& args,
                  const Stream& stream = Stream::Inline()) const;

  int64_t local_tokens() const;
  // What it works in, on this rank, in bytes.
  int64_t working_bytes() const;

 private:
  class State;
  explicit AllGatherKvAttention(std::shared_ptr<State> state);
  std::shared_ptr<State> state_;
};

// What one pass sends. The family must have costs.
Cost AllGatherKvForwardCost(int ranks, const ShardedAttentionConfig& config,
                            const CollectiveFamily& collectives);
Cost AllGatherKvBackwardCost(int ranks, const ShardedAttentionConfig& config,
                             const CollectiveFamily& collectives);

}  // namespace shardproof

#endif  // SHARDPROOF_ATTENTION_ALL_GATHER_KV_ALL_GATHER_KV_H_
