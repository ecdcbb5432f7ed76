// A block of a transformer, tensor-parallel: attention and a feed-forward block,
// each behind a norm and beside a residual connection.
//
// Contract:
//
//     forward    z = x + attention(norm1(x))         y = z + mlp(norm2(z))
//
//     backward   dz = dy + norm2's of mlp's of dy    dx = dz + norm1's of
//                                                       attention's of dz
//
// with the weights of attention and mlp cut over ranks as attention_block.h and
// mlp.h say, and those of the norms on every rank. GPT-2 has LayerNorm, GELU and
// biases; Llama RMSNorm, SwiGLU, rotary embeddings and grouped queries.
//
//                plain                       sequence-parallel
//     x y dy dx  all tokens on every rank    own tokens
//     forward    two all_reduces             two all_gathers and two
//                                            reduce_scatters
//     backward   the same                    the same, and two all_gathers more,
//                                            since inputs are not kept gathered
//     norms                                  all_reduces of their weights'
//                                            gradients, in the backward pass
//
// Per rank that is 4 rho tokens hidden elements each way, rho = (t - 1) / t, and
// 2 rho more where inputs are gathered again; besides, the gradients of weights
// that several ranks hold.
//
// What is kept between the passes (beside x, which the caller keeps):
//
//     kNone       everything
//     kSelective  everything but the core's probabilities, which the backward
//                 pass makes again: the one part that grows with length squared
//     kFull       nothing: the backward pass starts with a forward pass, and
//                 sends again what that sends. One object then serves all the
//                 blocks of a model that are alike, since it is about no one's x.
//
// Gradients have the same bits in all three.
//
//     SP_ASSIGN_OR_RETURN(TransformerBlock block,
//         TransformerBlock::Create(comm, {.length = 512, .hidden = 4096,
//             .heads = 32, .kv_heads = 8, .head_dim = 128,
//             .intermediate = 14336, .norm = NormKind::kRmsNorm,
//             .activation = Activation::kSwiGlu, .rope_theta = 500000,
//             .dtype = DType::kBF16, .sequence_parallel = true}));
//     SP_RETURN_IF_ERROR(block.Forward(x, weights, y));
//     SP_RETURN_IF_ERROR(block.Backward(x, weights, dy, dx, gradients));
//
// Sources: Shoeybi et al., Megatron-LM, arXiv:1909.08053, section 3; Korthikanti
// et al., arXiv:2205.05198, sections 4 and 5; Touvron et al., arXiv:2302.13971,
// section 2.2.
#ifndef SHARDPROOF_LAYERS_TRANSFORMER_BLOCK_TRANSFORMER_BLOCK_H_
#define SHARDPROOF_LAYERS_TRANSFORMER_BLOCK_TRANSFORMER_BLOCK_H_

#include <cstdint>
#include <vector>

#include "collectives/communicator.h"
#include "collectives/device.h"
#include "collectives/traffic.h"
#include "layers/attention_block/attention_block.h"
#include "layers/mlp/mlp.h"
#include "layers/norm/norm.h"
#include "layers/tensor_parallel/collective_family.h"
#include "reference/dtype.h"
#include "reference/status.h"
#include "reference/tensor.h"
#include "reference/transformer_block.h"

namespace shardproof {

enum class Recomputation : uint8_t { kNone, kSelective, kFull };

// Sizes of the whole block, equal on all ranks. Tokens are sequences x length,
// one sequence after the other.
struct TransformerBlockConfig {
  int64_t sequences = 1;
  int64_t length = 0;
  int64_t hidden = 0;
  int64_t heads = 0;     // At least as many as ranks.
  int64_t kv_heads = 0;  // Divides heads.
  int64_t head_dim = 0;
  int64_t intermediate = 0;
  NormKind norm = NormKind::kLayerNorm;  // LayerNorm has a bias.
  double epsilon = 1e-5;
  Activation activation = Activation::kGeluTanh;
  bool causal = true;
  double rope_theta = 0;  // 0: no rotary embedding.
  // As in ParallelAttentionConfig.
  std::vector<int64_t> positions = {};
  DType dtype = DType::kF32;  // f64, f32, bf16 or f16.
  bool bias = false;          // Of all projections.
  bool sequence_parallel = false;
  Recomputation recompute = Recomputation::kNone;
  // As in ParallelAttentionConfig.
  bool sum_shared = true;

  int64_t tokens() const { return sequences * length; }
};
ParallelAttentionConfig AttentionConfigOf(const TransformerBlockConfig& config);
ParallelMlpConfig MlpConfigOf(const TransformerBlockConfig& config);
// Of norm1, or norm2, which adds the residual.
ParallelNormConfig NormConfigOf(const TransformerBlockConfig& config,
                                bool residual);

// A rank's parts; what the block does not have may be null.
template <class Void>
struct TransformerBlockParts {
  Void* norm1_weight = nullptr;  // [hidden]
  Void* norm1_bias = nullptr;    // [hidden]
  AttentionParts<Void> attention = {};
  Void* norm2_weight = nullptr;  // [hidden]
  Void* norm2_bias = nullptr;    // [hidden]
  MlpParts<Void> mlp = {};
};
using TransformerBlockWeights = TransformerBlockParts<const void>;
using TransformerBlockGradients = TransformerBlockParts<void>;

class TransformerBlock {
 public:
  // Collective; the same error on every rank: those of the layers that it is
  // made of, and kInvalidArgument where ranks differ in what they recompute. All
  // memory that the block ever asks for is asked for here.
  static StatusOr<TransformerBlock> Create(
      const Communicator& comm, const TransformerBlockConfig& config,
      const CollectiveFamily& collectives = kAutoCollectives,
      const AttentionCoreFactory& core = CreatePlainAttention);

  // Collective. y = block(x); y may not be x. Errors are those of the transport.
  Status Forward(const void* x, const TransformerBlockWeights& weights, void* y,
                 const Stream& stream = Stream::Inline());
  // Collective. The gradients of the last Forward, with the same x and weights;
  // once for each. kFull: of any x and weights, whatever came before. dx may be
  // neither x nor dy.
  Status Backward(const void* x, const TransformerBlockWeights& weights,
                  const void* dy, void* dx,
                  const TransformerBlockGradients& gradients,
                  const Stream& stream = Stream::Inline());

  const HeadShare& share() const { return attention_.share(); }
  int64_t local_features() const { return mlp_.local_features(); }
  // How many tokens of x, y, dy and dx this rank has.
  int64_t local_tokens() const { return norm1_.local_tokens(); }
  // What is kept from Forward to Backward on this rank, in bytes, without x; and
  // what else the block holds: it is worked in, and blocks that take turns could
  // share it.
  int64_t kept_bytes() const;
  int64_t working_bytes() const;

 private:
  TransformerBlock(const TransformerBlockConfig& config, ParallelNorm norm1,
                   ParallelAttention attention, ParallelNorm norm2,
                   ParallelMlp mlp);
  Status Allocate(const Communicator& comm);
  // Activations of every part, whoever keeps them.
  int64_t ActivationBytes() const;

  TransformerBlockConfig config_;
  ParallelNorm norm1_;
  ParallelAttention attention_;
  ParallelNorm norm2_;
  ParallelMlp mlp_;
  // norm1(x) and norm2(z), which are sent, and z.
  Buffer normed1_, normed2_;
  Tensor z_;
  Buffer dz_;  // Worked in.
};

// What one pass sends. The family must have costs.
Cost TransformerBlockForwardCost(int ranks,
                                 const TransformerBlockConfig& config,
                                 const CollectiveFamily& collectives);
Cost TransformerBlockBackwardCost(int ranks,
                                  const TransformerBlockConfig& config,
                                  const CollectiveFamily& collectives);
// How it rounds where every sum over ranks rounds as `summed` says.
TransformerBlockArithmetic ArithmeticOf(const TransformerBlockConfig& config,
                                        const Arithmetic& summed);

// Activations of a block of GPT that a rank keeps, in bytes, by the formulas of
// Korthikanti et al., table 2: 16-bit numbers, intermediate = 4 hidden, as many
// KV heads as heads, and with dropout (two masks of a byte for each element of
// the residual stream, and one for each probability, whose dropped form is kept
// as well). The x that the block is given is counted.
//
//     plain                s b h (10 + 24 / t + 5 a s / (h t))
//     sequence-parallel    s b h / t (34 + 5 a s / h)
//     selective            the same without its last term
//     full                 2 s b h, or 2 s b h / t sequence-parallel
//
// This block has no dropout: of 10 it keeps 8, and of 5 it keeps 2.
double ActivationBytesFormula(int ranks, const TransformerBlockConfig& config);

}  // namespace shardproof

#endif  // SHARDPROOF_LAYERS_TRANSFORMER_BLOCK_TRANSFORMER_BLOCK_H_
