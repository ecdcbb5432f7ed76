// Ulysses attention: tokens lie on different ranks, and all_to_all gives each
// rank all of them for some of the heads, for the time of the attention.
//
// Contract, for P ranks with the tokens of RunsOf(layout, r), all heads, and P at
// most the number of heads:
//
//     forward    all_to_all of q, k, v; attention of the rank's heads, those of
//                HeadShare::Of(H, G, P, r), over the whole sequence; all_to_all
//                of O and lse
//     backward   all_to_all of dO; the gradients of the rank's heads; all_to_all
//                of dq, dk, dv
//
// With n tokens of which each rank has n / P, and heads that P divides, a rank
// sends S (n / P) d (P - 1) / P times
//
//     forward    (2 H + 2 G) e, and H a / d for lse
//     backward   2 H e + 2 G a
//
// bytes, e an element's and a one's of the accumulator's type, in 2 (P - 1)
// messages each: 1 / P of what a ring sends, but for the queries. Where there are
// fewer KV heads than ranks, each rank that needs one gets it. Heads that P does
// not divide make the ranks' work uneven by up to one head; what a mask lets a
// query see does not, so the layout of tokens does not matter.
// head_exchange.h says exactly what travels, how, and what is kept.
//
// A query's keys are all there at once: nothing is merged, and O is rounded once.
//
//     SP_ASSIGN_OR_RETURN(UlyssesAttention attention,
//         UlyssesAttention::Create(comm, {.tokens = 8192, .heads = 32,
//                                         .kv_heads = 8, .head_dim = 128,
//                                         .visibility = {.causal = true}}));
//     SP_RETURN_IF_ERROR(attention.Forward({q, k, v, o, lse}));
//
// Refused: more ranks than heads, since a head is computed by one rank; hybrid/
// has rings of such groups.
//
// Source: Jacobs et al., DeepSpeed Ulysses, arXiv:2309.14509.
#ifndef SHARDPROOF_ATTENTION_ULYSSES_ULYSSES_H_
#define SHARDPROOF_ATTENTION_ULYSSES_ULYSSES_H_

#include <cstdint>
#include <memory>

#include "attention/sharded/sharded_attention.h"
#include "collectives/communicator.h"
#include "collectives/device.h"
#include "collectives/traffic.h"
#include "layers/tensor_parallel/collective_family.h"
#include "reference/status.h"

namespace shardproof {

class UlyssesAttention {
 public:
  // Collective; the same error on every rank: those of CheckShardedSequence,
  // kInvalidArgument for more ranks than heads, kOutOfMemory. All memory that is
  // ever needed is asked for here.
  static StatusOr<UlyssesAttention> Create(
      const Communicator& comm, const ShardedAttentionConfig& config,
      const CollectiveFamily& collectives = kAutoCollectives,
      const AttentionKernels& kernels = {});

  // Collective. Errors are those of the transport.
  Status Forward(const AttentionForwardArgs& args,
                 const Stream& stream = Stream::Inline()) const;
  // Of the last Forward, as often as wanted: on several ranks q, k, v, o and lse
  // are those that it kept, not those of `args`. kInvalidArgument if it was made
  // without `backward`.
  Status Backward(const AttentionBackwardArgs& args,
                  const Stream& stream = Stream::Inline()) const;

  int64_t local_tokens() const;
  // What it works in and keeps, on this rank, in bytes.
  int64_t working_bytes() const;

 private:
  class State;
  explicit UlyssesAttention(std::shared_ptr<State> state);
  std::shared_ptr<State> state_;
};

// What one pass sends. The family must have costs.
Cost UlyssesForwardCost(int ranks, const ShardedAttentionConfig& config,
                        const CollectiveFamily& collectives);
Cost UlyssesBackwardCost(int ranks, const ShardedAttentionConfig& config,
                         const CollectiveFamily& collectives);

}  // namespace shardproof

#endif  // SHARDPROOF_ATTENTION_ULYSSES_ULYSSES_H_
