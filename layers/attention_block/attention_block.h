// The attention block of a transformer, tensor-parallel by heads: a fused,
// column-parallel projection to queries, keys and values, rotary embedding, the
// core on a rank's own heads, and a row-parallel projection.
//
// Contract, for H query and G KV heads of d numbers, rank r of t with the query
// heads h_r and KV heads g_r of head_share.h, X and DY [tokens, hidden] the
// whole input and upstream gradient, and w_r, b_r the rows of h_r's queries,
// then g_r's keys, then g_r's values:
//
//     forward    [q k v] = X w_r^T + b_r          q, k turned by position (RoPE)
//                o = core(q, k, v)                kernels/attention_core.h
//                y = (sum over ranks of o w_out[:, h_r]^T) + b_out
//
//     backward   do = DY w_out[:, h_r]            dw_out_r = DY^T o
//                [dq dk dv] = core's gradients    db_out = sum over tokens of DY
//                dw_r = [dq dk dv]^T X            db_r = sum over tokens of it
//                dx = sum over ranks of [dq dk dv] w_r
//
// In the fused weight [(H + 2 G) d, hidden] queries, keys and values are three
// parts, each cut by itself and by heads: a rank holds rows of all three, and
// never a contiguous part of the whole. Where several ranks hold a KV head, the
// rows of dw_r and db_r that are its own are summed over those ranks and only
// them: every one of its holders sees a part of its query heads.
//
//                plain                       sequence-parallel
//     x y dy dx  all tokens on every rank    own tokens
//     forward    all_reduce of y             all_gather of x, reduce_scatter of
//                                            y
//     backward   all_reduce of dx            all_gather of x again and of dy,
//                                            reduce_scatter of dx
//     both       all_reduce of the gradients of every shared KV head, in the
//                backward pass
//
// Positions are those of the whole sequence however tokens are cut, since
// whole sequences are in the core.
//
//     SP_ASSIGN_OR_RETURN(ParallelAttention attention,
//         ParallelAttention::Create(comm, {.length = 512, .hidden = 4096,
//                                          .heads = 32, .kv_heads = 8,
//                                          .head_dim = 128,
//                                          .rope_theta = 500000}));
//     SP_RETURN_IF_ERROR(attention.Forward(x, weights, y));
//     SP_RETURN_IF_ERROR(attention.Backward(x, weights, dy, dx, gradients));
//
// Sources: Shoeybi et al., Megatron-LM, arXiv:1909.08053, section 3 and figure
// 3b; Korthikanti et al., arXiv:2205.05198, sections 4.2.2 and 5; Ainslie et
// al., arXiv:2305.13245 (grouped queries).
#ifndef SHARDPROOF_LAYERS_ATTENTION_BLOCK_ATTENTION_BLOCK_H_
#define SHARDPROOF_LAYERS_ATTENTION_BLOCK_ATTENTION_BLOCK_H_

#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

#include "collectives/communicator.h"
#include "collectives/device.h"
#include "collectives/traffic.h"
#include "layers/attention_block/head_share.h"
#include "layers/attention_block/kv_sharers.h"
#include "layers/kernels/attention_core.h"
#include "layers/kernels/rope.h"
#include "layers/tensor_parallel/collective_family.h"
#include "layers/tensor_parallel/parallel_region.h"
#include "reference/attention.h"
#include "reference/dtype.h"
#include "reference/status.h"
#include "reference/tensor.h"

namespace shardproof {

// Sizes of the whole block, equal on all ranks. Tokens are sequences x length,
// one sequence after the other.
struct ParallelAttentionConfig {
  int64_t sequences = 1;
  int64_t length = 0;
  int64_t hidden = 0;
  int64_t heads = 0;     // At least as many as ranks.
  int64_t kv_heads = 0;  // Divides heads.
  int64_t head_dim = 0;
  bool causal = true;
  double scale = 0;       // 0: 1 / sqrt(head_dim).
  double rope_theta = 0;  // 0: no rotary embedding; 10000 or 500000.
  // For the rotary embedding, of the tokens of a sequence (the same in each) or
  // of all tokens; empty: 0, 1, ... in each sequence.
  std::vector<int64_t> positions = {};
  DType dtype = DType::kF32;  // f64, f32, bf16 or f16.
  bool bias = false;
  bool sequence_parallel = false;
  // The backward pass makes the core's probabilities again.
  bool recompute_core = false;
  // Backward sums the gradients of shared KV heads. Not: the caller does, with
  // SumSharedGradients, once for many backward passes that it has added up.
  bool sum_shared = true;

  int64_t tokens() const { return sequences * length; }
};

// A rank's parts, row-major, of the block's type; biases may be null in a block
// without. `Void` is void or const void.
template <class Void>
struct AttentionParts {
  Void* w_qkv = nullptr;  // [(|h_r| + 2 |g_r|) d, hidden]
  Void* b_qkv = nullptr;  // [(|h_r| + 2 |g_r|) d]
  Void* w_out = nullptr;  // [hidden, |h_r| d]
  Void* b_out = nullptr;  // [hidden]
};
using AttentionWeights = AttentionParts<const void>;
using AttentionGradients = AttentionParts<void>;

class ParallelAttention {
 public:
  // Collective; the same error on every rank: kInvalidArgument for a negative
  // size, heads that are fewer than the ranks or no multiple of the KV heads, an
  // odd head_dim with a rotary embedding, or where ranks differ; kUnsupported
  // for the type; kOutOfMemory. All memory that the block ever asks for is asked
  // for here. `core` computes what is between the projections.
  static StatusOr<ParallelAttention> Create(
      const Communicator& comm, const ParallelAttentionConfig& config,
      const CollectiveFamily& collectives = kAutoCollectives,
      const AttentionCoreFactory& core = CreatePlainAttention);

  // Collective. y = attention(x); what Backward needs is kept here, but for x.
  // Errors are those of the transport.
  Status Forward(const void* x, const AttentionWeights& weights, void* y,
                 const Stream& stream = Stream::Inline());
  // Collective. The gradients of the last Forward, with the same x and weights.
  Status Backward(const void* x, const AttentionWeights& weights,
                  const void* dy, void* dx, const AttentionGradients& gradients,
                  const Stream& stream = Stream::Inline());
  // Collective among the ranks that share a KV head; for sum_shared = false.
  Status SumSharedGradients(const AttentionGradients& gradients,
                            const Stream& stream = Stream::Inline()) const;

  const HeadShare& share() const { return share_; }
  // How many tokens of x, y, dy and dx this rank has.
  int64_t local_tokens() const { return input_.local_tokens(); }
  // What is kept from Forward to Backward, and what either works in, in bytes
  // on this rank. x, which the caller keeps, is in neither.
  int64_t kept_bytes() const;
  int64_t working_bytes() const;

 private:
  ParallelAttention(const ParallelAttentionConfig& config, HeadShare share,
                    const CollectiveFamily& collectives, ParallelRegion input,
                    ParallelRegion output);
  Status Allocate(const AttentionCoreFactory& core);

  int64_t qkv_width() const { return share_.FusedHeads() * config_.head_dim; }
  int64_t out_width() const { return share_.heads.count * config_.head_dim; }
  // q, k and v in a matrix [tokens, qkv_width()].
  template <class Void>
  HeadsIn<Void> PartOf(Void* qkv, int64_t first_head) const;
  // q and k in such a matrix, turned.
  Status Turn(const Stream& stream, RopeDirection direction, Tensor& qkv) const;
  Status CoreGradients(const Stream& stream);
  Status SumRows(const Stream& stream, const KvSharers& sharers, void* gradient,
                 int64_t width) const;

  ParallelAttentionConfig config_;
  HeadShare share_;
  CollectiveFamily collectives_;
  ParallelRegion input_, output_;
  std::vector<KvSharers> sharers_;
  std::optional<RopeTable> rope_;
  std::unique_ptr<AttentionCore> core_;
  Tensor qkv_, o_;      // Kept.
  Tensor d_qkv_, d_o_;  // Worked in.
};

// What one pass sends. The family must have costs.
Cost ParallelAttentionForwardCost(int ranks,
                                  const ParallelAttentionConfig& config,
                                  const CollectiveFamily& collectives);
// Without what SumSharedGradients sends where Backward does not call it.
Cost ParallelAttentionBackwardCost(int ranks,
                                   const ParallelAttentionConfig& config,
                                   const CollectiveFamily& collectives);
Cost SumSharedGradientsCost(int ranks, const ParallelAttentionConfig& config,
                            const CollectiveFamily& collectives);
// How it rounds where every sum over ranks rounds as `summed` says.
AttentionArithmetic ParallelAttentionArithmetic(
    const ParallelAttentionConfig& config, const Arithmetic& summed);

}  // namespace shardproof

#endif  // SHARDPROOF_LAYERS_ATTENTION_BLOCK_ATTENTION_BLOCK_H_
