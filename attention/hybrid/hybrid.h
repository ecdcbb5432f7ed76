// Hybrid attention: groups of neighbours exchange heads for tokens, as Ulysses
// does, and the groups form rings. It serves more ranks than there are heads, and
// sends less than a ring.
//
// Contract, for P = U R ranks: rank g U + u is number u of group g. The sequence
// is dealt to the R groups by the layout, and the tokens of group g, as they lie
// there, to its U ranks: rank u has rows BalancedChunk(n_g, U, u) of them.
//
//     forward    all_to_all of q, k, v in the group: all of its tokens, the heads
//                HeadShare::Of(H, G, U, u); ring attention of these, over the R
//                ranks with the same u; all_to_all of O and lse in the group
//     backward   all_to_all of dO; the ring's backward pass, whose dK and dV
//                arrive in the accumulator's type; all_to_all of dq, dk, dv, of
//                which those of a KV head that several ranks hold are added up
//
// U = 1 is ring attention, U = P Ulysses. What a rank sends is the sum of what
// both say (head_exchange.h of a group, rotating_attention.h of a ring, with the
// heads of a rank): with n / P tokens on each rank and heads that U divides,
// forward
//
//     all_to_all    S (n / P) d e (2 H + 2 G) (U - 1) / U, and lse
//     ring          2 S (n / R) d e (G / U) (R - 1)
//                       = 2 S (n / P) d e G (R - 1)
//
// where a ring of all P sends 2 S (n / P) d e G (P - 1). Where there are fewer KV
// heads than U, each rank of a group has one, and G counts as U. The ring's
// messages have a step's computation to travel in and the all_to_all has not, so
// it gets the faster links: groups are neighbours.
//
//     const HybridConfig config = {
//         .attention = {.tokens = 8192, .heads = 32, .kv_heads = 8,
//                       .head_dim = 128, .layout = SequenceLayout::kZigzag,
//                       .visibility = {.causal = true}},
//         .ulysses = 4};
//     SP_ASSIGN_OR_RETURN(const std::vector<TokenRun> mine,
//                         HybridRunsOf(config, comm.size(), comm.rank()));
//     SP_ASSIGN_OR_RETURN(HybridAttention attention,
//                         HybridAttention::Create(comm, config));
//     SP_RETURN_IF_ERROR(attention.Forward({q, k, v, o, lse}));
//
// Refused: groups that do not divide the ranks, and groups of more ranks than
// heads, since a head is computed by one rank of a group.
//
// Rejected: rings of neighbours and groups across them, which puts the larger
// traffic on the slower links.
//
// Sources: Fang and Zhao, USP, arXiv:2405.07719; Gu et al., LoongTrain,
// arXiv:2406.18485 (its "head-first" placement).
#ifndef SHARDPROOF_ATTENTION_HYBRID_HYBRID_H_
#define SHARDPROOF_ATTENTION_HYBRID_HYBRID_H_

#include <cstdint>
#include <memory>
#include <vector>

#include "attention/sharded/rotating_attention.h"
#include "attention/sharded/sharded_attention.h"
#include "attention/visibility.h"
#include "collectives/communicator.h"
#include "collectives/device.h"
#include "collectives/traffic.h"
#include "layers/tensor_parallel/collective_family.h"
#include "reference/status.h"

namespace shardproof {

struct HybridConfig {
  ShardedAttentionConfig attention;  // The layout is over groups.
  int ulysses = 1;                   // Ranks of a group; divides all.
};

// The tokens of a rank, in the order of its rows. kInvalidArgument for groups that
// do not divide the ranks, and what RunsOf refuses.
StatusOr<std::vector<TokenRun>> HybridRunsOf(const HybridConfig& config,
                                             int ranks, int rank);

class HybridAttention {
 public:
  // Collective; the same error on every rank: those of CheckShardedAttention,
  // kInvalidArgument for a layout that does not fit the groups, for groups that
  // do not divide the ranks or have more of them than heads, kOutOfMemory,
  // kUnavailable where no thread can be started. All memory that is ever needed
  // is asked for here.
  static StatusOr<HybridAttention> Create(
      const Communicator& comm, const HybridConfig& config,
      RingMode mode = RingMode::kOverlapped,
      const CollectiveFamily& collectives = kAutoCollectives,
      const AttentionKernels& kernels = {});

  // Collective. Errors are those of the transport.
  Status Forward(const AttentionForwardArgs& args,
                 const Stream& stream = Stream::Inline()) const;
  // Of the last Forward, as often as wanted: in groups of several ranks q, k, v,
  // o and lse are those that it kept, not those of `args`. kInvalidArgument if it
  // was made without `backward`.
  Status Backward(const AttentionBackwardArgs& args,
                  const Stream& stream = Stream::Inline()) const;

  int64_t local_tokens() const;
  // What it works in and keeps, on this rank, in bytes.
  int64_t working_bytes() const;

 private:
  class State;
  explicit HybridAttention(std::shared_ptr<State> state);
  std::shared_ptr<State> state_;
};

// What one pass sends. The family must have costs.
Cost HybridForwardCost(int ranks, const HybridConfig& config,
                       const CollectiveFamily& collectives);
Cost HybridBackwardCost(int ranks, const HybridConfig& config,
                        const CollectiveFamily& collectives);
// How many partial results become one, at most.
int64_t HybridMerges(int ranks, const HybridConfig& config);

}  // namespace shardproof

#endif  // SHARDPROOF_ATTENTION_HYBRID_HYBRID_H_
