// Tree decoding: attention of a few last tokens, which every rank has, over keys
// and values that are dealt to ranks. Forward only: nobody trains with it.
//
// Contract, for T queries at the positions p .. p + T - 1, rank r of P with the
// keys of the tokens of RunsOf(layout, r), all heads:
//
//     local      O_r, lse_r of the queries over the rank's keys
//     combined   lse = ln sum over ranks of exp(lse_r)
//                O = sum over ranks of exp(lse_r - lse) O_r
//
// and O = 0, lse = -inf for a query that sees no key anywhere; a rank whose keys
// no query sees has lse_r = -inf and counts for nothing. O and lse are the same
// bits on every rank.
//
//     kDoubling    ranks exchange (O_r, lse_r) with partners at distance 1, 2, 4,
//                  .. and merge them, the lower rank's first on both sides;
//                  ranks beyond the largest power of two fold into a neighbour
//                  first and get the result from it
//     kAllReduce   all_reduce of max lse_r, then of the sums of
//                  exp(lse_r - max) O_r and exp(lse_r - max), packed
//
// With B = S T H (d + 1) numbers of the accumulator's type, that is O and lse,
// for P a power of two:
//
//                              a rank sends             messages of a rank
//     kDoubling                B lg P                   lg P
//     kAllReduce over a ring   2 (B + S T H) (P-1) / P  4 (P - 1)
//
// whatever the number of keys is, which a ring of keys would send. With few
// queries messages cost more than bytes, and kDoubling sends least of them.
//
// The keys are a cache of config.tokens tokens, and queries may be anywhere in
// it: with causal attention tokens behind them need not be there yet, and are
// not looked at. Striped,
// a cache that grows keeps ranks equally busy.
//
//     SP_ASSIGN_OR_RETURN(TreeDecoding decoding,
//         TreeDecoding::Create(comm,
//             {.tokens = 131072, .heads = 32, .kv_heads = 8, .head_dim = 128,
//              .layout = SequenceLayout::kStriped,
//              .visibility = {.causal = true}, .backward = false},
//             /*queries=*/1));
//     for (int64_t p = prompt; p < end; ++p) {
//       ... the owner of token p appends its key and value ...
//       SP_RETURN_IF_ERROR(decoding.Forward({q, k, v, o, lse}, p));
//     }
//
// Source: Shyam et al., Tree Attention, arXiv:2408.04093, algorithm 3, which has
// three all_reduces; numerators and denominators are packed into one here.
#ifndef SHARDPROOF_ATTENTION_TREE_DECODING_TREE_DECODING_H_
#define SHARDPROOF_ATTENTION_TREE_DECODING_TREE_DECODING_H_

#include <cstdint>
#include <memory>

#include "attention/sharded/sharded_attention.h"
#include "collectives/communicator.h"
#include "collectives/device.h"
#include "collectives/traffic.h"
#include "layers/tensor_parallel/collective_family.h"
#include "reference/status.h"

namespace shardproof {

enum class TreeCombine : uint8_t { kDoubling, kAllReduce };

class TreeDecoding {
 public:
  // Collective; the same error on every rank: those of CheckShardedSequence;
  // kInvalidArgument for config.backward, and for more queries than tokens or
  // fewer than none; kOutOfMemory. All memory that is ever needed is asked for
  // here. `collectives` are those of kAllReduce.
  static StatusOr<TreeDecoding> Create(
      const Communicator& comm, const ShardedAttentionConfig& config,
      int64_t queries, TreeCombine combine = TreeCombine::kDoubling,
      const CollectiveFamily& collectives = kAutoCollectives,
      const AttentionKernels& kernels = {});

  // Collective. q and o [S, T, H, d] and lse [S, H, T], k and v [S, n_r, G, d];
  // q and `position`, that of the first query, are the same on every rank.
  // kInvalidArgument for queries that are not among the tokens; else errors are
  // those of the transport.
  Status Forward(const AttentionForwardArgs& args, int64_t position,
                 const Stream& stream = Stream::Inline()) const;

  // How many tokens of k and v this rank has.
  int64_t local_tokens() const;
  // What it works in, on this rank, in bytes.
  int64_t working_bytes() const;

 private:
  class State;
  explicit TreeDecoding(std::shared_ptr<State> state);
  std::shared_ptr<State> state_;
};

// What one call sends. For kAllReduce the family must have costs.
Cost TreeDecodingCost(int ranks, const ShardedAttentionConfig& config,
                      int64_t queries, TreeCombine combine,
                      const CollectiveFamily& collectives);
// How many merges are on the way to a result, at most; kAllReduce rounds no more
// often.
int64_t TreeDecodingMerges(int ranks, const ShardedAttentionConfig& config);

}  // namespace shardproof

#endif  // SHARDPROOF_ATTENTION_TREE_DECODING_TREE_DECODING_H_
