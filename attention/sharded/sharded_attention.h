// What all ways to share attention among ranks have in common: the sizes of the
// whole, what a rank passes, and which kernels compute.
//
// Contract, for S sequences of n tokens, H query heads and G KV heads of d
// numbers, over all tokens of a sequence, wherever they lie:
//
//     forward    O = softmax(scale Q K^T, over what visibility lets each query
//                see) V              lse = ln of the softmax's sum
//     backward   dQ, dK, dV of the same
//
// of which each rank has a part: some of the tokens of every sequence with all
// heads (layout/layout.h says which), or all tokens of some heads. Queries and
// keys come turned: a rank turns its own by Positions(runs), those of the whole
// sequence (layers/kernels/rope.h).
//
// lse is a natural logarithm, of the accumulator's type, -inf for a query that
// sees no key; its O is 0.
#ifndef SHARDPROOF_ATTENTION_SHARDED_SHARDED_ATTENTION_H_
#define SHARDPROOF_ATTENTION_SHARDED_SHARDED_ATTENTION_H_

#include <cmath>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "attention/kernels/flash.h"
#include "attention/kernels/merge.h"
#include "attention/layout/layout.h"
#include "attention/visibility.h"
#include "collectives/communicator.h"
#include "reference/dtype.h"
#include "reference/status.h"

namespace shardproof {

// Of the whole, equal on all ranks.
struct ShardedAttentionConfig {
  int64_t sequences = 1;
  int64_t tokens = 0;  // Of each sequence.
  int64_t heads = 0;
  int64_t kv_heads = 0;  // Divides heads.
  int64_t head_dim = 0;
  double scale = 0;  // 0: 1 / sqrt(head_dim).
  SequenceLayout layout = SequenceLayout::kContiguous;
  Visibility visibility = {};
  DType dtype = DType::kF32;  // f64, f32, bf16 or f16.
  bool backward = true;       // Else Backward may not be called.

  double Scale() const {
    return scale != 0 ? scale : 1 / std::sqrt(static_cast<double>(head_dim));
  }
  int64_t heads_per_kv() const { return kv_heads > 0 ? heads / kv_heads : 1; }
  LayoutShape LayoutOver(int64_t ranks) const {
    return {.layout = layout, .tokens = tokens, .ranks = ranks};
  }
};

// What a rank computes with: others than these have bugs, which are planted.
struct AttentionKernels {
  StatusOr<std::unique_ptr<FlashAttention>> (*flash)(const FlashShape&) =
      FlashAttention::Create;
  Status (*merge)(const Stream&, const MergeArgs&) = MergeAttention;
  Status (*delta)(const Stream&, const DeltaArgs&) = AttentionDelta;
};

// A rank's tensors, with n_r tokens of H_r and G_r heads, row-major. Empty ones
// may be null; none may overlap.
struct AttentionForwardArgs {
  const void* q = nullptr;  // [S, n_r, H_r, d]
  const void* k = nullptr;  // [S, n_r, G_r, d]
  const void* v = nullptr;  // as k
  void* o = nullptr;        // as q
  void* lse = nullptr;      // [S, H_r, n_r] of the accumulator's type
};
// With o and lse of the last Forward.
struct AttentionBackwardArgs {
  const void* q = nullptr;
  const void* k = nullptr;
  const void* v = nullptr;
  const void* o = nullptr;
  const void* lse = nullptr;
  const void* d_o = nullptr;  // as q
  void* dq = nullptr;
  void* dk = nullptr;
  void* dv = nullptr;
};

// Collective; the same error on every rank: kInvalidArgument where ranks differ,
// for a negative size, for heads that are no multiple of the KV heads, for a
// scale or visibility that there is not; kUnsupported for the type. `scheme`
// names it.
Status CheckShardedAttention(const Communicator& comm, std::string_view scheme,
                             const ShardedAttentionConfig& config);
// And kInvalidArgument for a layout that does not fit `ranks`.
Status CheckShardedSequence(const Communicator& comm, std::string_view scheme,
                            const ShardedAttentionConfig& config,
                            int64_t ranks);

// "ring attention of 2 x 37 tokens, 8 heads, 2 KV heads of 64, .."
std::string Describe(std::string_view scheme,
                     const ShardedAttentionConfig& config);

// The runs of every rank, of what CheckShardedSequence has let pass.
std::vector<std::vector<TokenRun>> RunsOfRanks(const LayoutShape& shape);
int64_t LongestRun(const std::vector<std::vector<TokenRun>>& runs);

}  // namespace shardproof

#endif  // SHARDPROOF_ATTENTION_SHARDED_SHARDED_ATTENTION_H_
