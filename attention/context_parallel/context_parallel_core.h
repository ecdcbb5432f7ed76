// Attention sharded over context-parallel ranks as the core of an attention
// block: each rank runs the block on its part of every sequence, and queries see
// the keys of all parts.
//
// Contract, for P ranks of a communicator and sequences of n tokens, of which
// rank r has those of RunsOf({layout, n, P}, r), in this order: the queries and
// keys that the core of rank r is given, and O and the gradients that it gives,
// are the rows of these tokens of
//
//     O = softmax(scale Q K^T) V        over whole sequences, causal by position
//     dQ, dK, dV of the same            dK, dV of what all ranks' queries see
//
// Everything else in a block knows one token at a time, but for two things. The
// rotary embedding needs a token's place in its whole sequence:
// LocalPositions. And the gradients of weights are those of this rank's tokens:
// the caller sums them over the ranks.
//
//     kRing            keys and values go around       attention/ring
//     kAllGatherKv     every rank gets all of them     attention/all_gather_kv
//     kUlysses         heads for tokens and back       attention/ulysses
//
// What is sent, and how it rounds, is what the scheme says. The probabilities
// are always made again in the backward pass: AttentionShape::recompute changes
// nothing. The schemes take packed heads: what lies with gaps is copied.
//
//     const ContextParallelConfig context = {.scheme = ContextScheme::kRing,
//                                            .layout = SequenceLayout::kZigzag,
//                                            .tokens = 8192};
//     SP_ASSIGN_OR_RETURN(
//         std::vector<int64_t> positions,
//         LocalPositions(context.LayoutOver(cp.size()), cp.rank()));
//     const auto length = static_cast<int64_t>(positions.size());
//     SP_ASSIGN_OR_RETURN(ParallelAttention attention,
//         ParallelAttention::Create(tp, {.length = length, .hidden = 4096,
//                                        .heads = 32, .kv_heads = 8,
//                                        .head_dim = 128, .rope_theta = 500000,
//                                        .positions = std::move(positions)},
//             kAutoCollectives, ContextParallelCore(cp, context)));
//
// With tensor parallelism, a rank's heads must be whole groups or parts of one
// group: the schemes know no other sharing of KV heads.
//
// Rejected: a core that also deals tokens to ranks, so that the block would not
// know. Projections would then be computed for all tokens on every rank.
//
// Sources: Liu et al., arXiv:2310.01889 (ring); Jacobs et al., arXiv:2309.14509
// (Ulysses); Llama 3, arXiv:2407.21783, section 3.3.2 (keys gathered, and
// context parallelism beside the other dimensions).
#ifndef SHARDPROOF_ATTENTION_CONTEXT_PARALLEL_CONTEXT_PARALLEL_CORE_H_
#define SHARDPROOF_ATTENTION_CONTEXT_PARALLEL_CONTEXT_PARALLEL_CORE_H_

#include <cstdint>
#include <string_view>
#include <vector>

#include "attention/layout/layout.h"
#include "attention/sharded/sharded_attention.h"
#include "collectives/communicator.h"
#include "layers/kernels/attention_core.h"
#include "reference/status.h"

namespace shardproof {

enum class ContextScheme : uint8_t { kRing, kAllGatherKv, kUlysses };
// "ring", "all_gather_kv", "ulysses".
std::string_view Name(ContextScheme scheme);

// Equal on all ranks of the communicator.
struct ContextParallelConfig {
  ContextScheme scheme = ContextScheme::kRing;
  SequenceLayout layout = SequenceLayout::kContiguous;
  int64_t tokens = 0;  // Of each whole sequence.

  LayoutShape LayoutOver(int64_t ranks) const {
    return {.layout = layout, .tokens = tokens, .ranks = ranks};
  }
};

// The places in its whole sequence of each token of a rank, in the rank's order:
// what ParallelAttentionConfig::positions takes. Errors are those of RunsOf.
StatusOr<std::vector<int64_t>> LocalPositions(const LayoutShape& shape,
                                              int64_t rank);

// The factory is collective over `comm`, which it keeps: ranks make their cores
// in the same order. Its AttentionShape is of this rank's part: as many queries
// as keys, those of the layout, without offsets. The same error on every rank:
// kInvalidArgument for another number of tokens, for offsets, and what the
// scheme refuses, as Ulysses does fewer heads than ranks; kUnsupported for heads
// of several groups of which some are not whole; kOutOfMemory. All memory that a
// core ever needs is asked for here.
//
// A core's passes are collective over `comm`. Cores that share it, as those of
// layers and of micro-batches in flight do, take turns, in the same order on
// every rank, and on one stream.
AttentionCoreFactory ContextParallelCore(const Communicator& comm,
                                         const ContextParallelConfig& config,
                                         const AttentionKernels& kernels = {});

}  // namespace shardproof

#endif  // SHARDPROOF_ATTENTION_CONTEXT_PARALLEL_CONTEXT_PARALLEL_CORE_H_
