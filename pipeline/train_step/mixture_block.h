// A block of a transformer with a mixture of experts in the place of its mlp, as
// in Mixtral: tensor-parallel attention, expert-parallel feed-forward networks.
//
// Contract:
//
//     forward    z = x + attention(norm1(x))         y = z + moe(norm2(z))
//
// and its gradients. Every rank of `tensor` has all weights of the experts that
// its rank of `experts` has: without sequence parallelism these ranks do the same
// on the same tokens, with it each has tokens of its own, and gradients of router
// and experts are summed over them: one all_reduce of each.
//
//                     tensor parallel            sequence-parallel
//     attention       as attention_block.h       as that
//     mixture         as expert_parallel_moe.h   the same, and an all_reduce of
//                     among `experts`, once in   the gradients of router and
//                     each rank of `tensor`      experts over `tensor`
//
// Choices are dropless, and there is no auxiliary loss: with one, micro-batches
// would not add up to a batch.
//
//     SP_ASSIGN_OR_RETURN(MixtureBlock block, MixtureBlock::Create(
//         {.tensor = tp, .experts = ep}, {.block = config, .experts = 8,
//          .top_k = 2, .sequences_of = {2, 2}}));
//
// Source: Jiang et al., Mixtral of experts, arXiv:2401.04088.
#ifndef SHARDPROOF_PIPELINE_TRAIN_STEP_MIXTURE_BLOCK_H_
#define SHARDPROOF_PIPELINE_TRAIN_STEP_MIXTURE_BLOCK_H_

#include <cstdint>
#include <vector>

#include "collectives/communicator.h"
#include "layers/attention_block/attention_block.h"
#include "layers/expert_parallel_moe/expert_parallel_moe.h"
#include "layers/norm/norm.h"
#include "layers/tensor_parallel/collective_family.h"
#include "layers/transformer_block/transformer_block.h"
#include "reference/status.h"
#include "reference/tensor.h"

namespace shardproof {

struct MixtureBlockConfig {
  // Of attention and norms, of this rank's tokens; its mlp is ignored but for
  // `intermediate`, the width of an expert. f32 or f64: the router's type.
  TransformerBlockConfig block = {};
  int64_t experts = 0;
  int64_t top_k = 1;
  // How many sequences each rank of `experts` has.
  std::vector<int64_t> sequences_of = {};
};

struct MixtureGroups {
  Communicator tensor;
  Communicator experts;
};

class MixtureBlock {
 public:
  // Collective over both groups. Errors are those of the layers that it is made
  // of, and kUnsupported for another type. All memory is asked for here.
  static StatusOr<MixtureBlock> Create(
      const MixtureGroups& groups, const MixtureBlockConfig& config,
      const CollectiveFamily& collectives = kAutoCollectives,
      const AttentionCoreFactory& core = CreatePlainAttention);

  // Collective over both groups. `dense` has no mlp.
  Status Forward(const void* x, const TransformerBlockWeights& dense,
                 const MoeWeights& experts, void* y);
  // The gradients of the last Forward. dx may be neither x nor dy.
  Status Backward(const void* x, const TransformerBlockWeights& dense,
                  const MoeWeights& experts, const void* dy, void* dx,
                  const TransformerBlockGradients& d_dense,
                  const MoeGradients& d_experts);

  int64_t local_tokens() const { return norm1_.local_tokens(); }

 private:
  MixtureBlock(const MixtureGroups& groups, const MixtureBlockConfig& config,
               const CollectiveFamily& collectives, ParallelNorm norm1,
               ParallelAttention attention, ParallelNorm norm2,
               ExpertParallelMoe moe);
  Status Allocate();
  Status SumOverTensor(void* gradient, int64_t count);

  MixtureGroups groups_;
  MixtureBlockConfig config_;
  CollectiveFamily collectives_;
  ParallelNorm norm1_;
  ParallelAttention attention_;
  ParallelNorm norm2_;
  ExpertParallelMoe moe_;
  Buffer normed1_, normed2_, dz_;
  Tensor z_, chosen_, combine_weights_, d_combine_weights_, losses_;
};

}  // namespace shardproof

#endif  // SHARDPROOF_PIPELINE_TRAIN_STEP_MIXTURE_BLOCK_H_
