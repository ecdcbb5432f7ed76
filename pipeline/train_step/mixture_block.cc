#include "pipeline/train_step/mixture_block.h"

#include <utility>

#include "collectives/chunks.h"
#include "layers/kernels/activation.h"
#include "layers/tensor_parallel/agree.h"

namespace shardproof {

MixtureBlock::MixtureBlock(const MixtureGroups& groups,
                           const MixtureBlockConfig& config,
                           const CollectiveFamily& collectives,
                           ParallelNorm norm1, ParallelAttention attention,
                           ParallelNorm norm2, ExpertParallelMoe moe)
    : groups_(groups),
      config_(config),
      collectives_(collectives),
      norm1_(std::move(norm1)),
      attention_(std::move(attention)),
      norm2_(std::move(norm2)),
      moe_(std::move(moe)) {}

StatusOr<MixtureBlock> MixtureBlock::Create(const MixtureGroups& groups,
                                            const MixtureBlockConfig& config,
                                            const CollectiveFamily& collectives,
                                            const AttentionCoreFactory& core) {
  const TransformerBlockConfig& block = config.block;
  if (block.dtype != Accumulator(block.dtype)) {
    return Unsupported("a mixture in {}: its router would be in {}",
                       Name(block.dtype), Name(Accumulator(block.dtype)));
  }
  SP_ASSIGN_OR_RETURN(
      ParallelAttention attention,
      ParallelAttention::Create(groups.tensor, AttentionConfigOf(block),
                                collectives, core));
  SP_ASSIGN_OR_RETURN(
      ParallelNorm norm1,
      ParallelNorm::Create(groups.tensor, NormConfigOf(block, false),
                           collectives));
  SP_ASSIGN_OR_RETURN(
      ParallelNorm norm2,
      ParallelNorm::Create(groups.tensor, NormConfigOf(block, true),
                           collectives));
  std::vector<int64_t> tokens;
  for (const int64_t sequences : config.sequences_of) {
    const int64_t all = sequences * block.length;
    tokens.push_back(
        block.sequence_parallel
            ? BalancedChunk(all, groups.tensor.size(), groups.tensor.rank())
                  .count
            : all);
  }
  SP_ASSIGN_OR_RETURN(
      ExpertParallelMoe moe,
      ExpertParallelMoe::Create(groups.experts,
                                {.tokens = tokens,
                                 .hidden = block.hidden,
                                 .intermediate = block.intermediate,
                                 .experts = config.experts,
                                 .top_k = config.top_k,
                                 .renormalise = true,
                                 .activation = block.activation,
                                 .dtype = block.dtype},
                                collectives));
  MixtureBlock made(groups, config, collectives, std::move(norm1),
                    std::move(attention), std::move(norm2), std::move(moe));
  SP_RETURN_IF_ERROR(AgreeOnStatus(groups.tensor, made.Allocate()));
  return made;
}

Status MixtureBlock::Allocate() {
  const DType dtype = config_.block.dtype;
  const Shape hidden = {local_tokens(), config_.block.hidden};
  const Shape choices = {local_tokens(), config_.top_k};
  SP_ASSIGN_OR_RETURN(z_, Tensor::Create(dtype, hidden));
  SP_ASSIGN_OR_RETURN(chosen_, Tensor::Create(DType::kI32, choices));
  SP_ASSIGN_OR_RETURN(combine_weights_, Tensor::Create(dtype, choices));
  SP_ASSIGN_OR_RETURN(d_combine_weights_, Tensor::Create(dtype, choices));
  losses_ = Tensor::Zeros(dtype, {2, 2});  // And their gradients, zeros.
  for (Buffer* buffer : {&normed1_, &normed2_, &dz_}) {
    SP_ASSIGN_OR_RETURN(
        *buffer, groups_.tensor.Allocate(static_cast<size_t>(z_.num_bytes())));
  }
  return OkStatus();
}

Status MixtureBlock::Forward(const void* x,
                             const TransformerBlockWeights& dense,
                             const MoeWeights& experts, void* y) {
  SP_RETURN_IF_ERROR(norm1_.Forward({.x = x,
                                     .weight = dense.norm1_weight,
                                     .bias = dense.norm1_bias,
                                     .y = normed1_.data()}));
  SP_RETURN_IF_ERROR(attention_.Forward(normed1_.data(), dense.attention, y));
  SP_RETURN_IF_ERROR(norm2_.Forward({.x = y,
                                     .residual = x,
                                     .weight = dense.norm2_weight,
                                     .bias = dense.norm2_bias,
                                     .z = z_.raw(),
                                     .y = normed2_.data()}));
  SP_RETURN_IF_ERROR(moe_.Forward({.x = normed2_.data(),
                                   .weights = experts,
                                   .y = y,
                                   .chosen = chosen_.data<int32_t>(),
                                   .combine_weights = combine_weights_.raw(),
                                   .losses = losses_.raw()}));
  return AddBias(Stream::Inline(), config_.block.dtype, 1, z_.num_elements(),
                 z_.raw(), y);
}

Status MixtureBlock::SumOverTensor(void* gradient, int64_t count) {
  if (gradient == nullptr || count == 0) return OkStatus();
  return collectives_.all_reduce(groups_.tensor,
                                 {.send = gradient,
                                  .recv = gradient,
                                  .count = count,
                                  .dtype = config_.block.dtype});
}

Status MixtureBlock::Backward(const void* x,
                              const TransformerBlockWeights& dense,
                              const MoeWeights& experts, const void* dy,
                              void* dx,
                              const TransformerBlockGradients& d_dense,
                              const MoeGradients& d_experts) {
  const TransformerBlockConfig& block = config_.block;
  void* const dz = dz_.data();
  SP_RETURN_IF_ERROR(
      moe_.Backward({.x = normed2_.data(),
                     .weights = experts,
                     .chosen = chosen_.data<int32_t>(),
                     .combine_weights = combine_weights_.raw(),
                     .dy = dy,
                     .d_losses = At(losses_.raw(), block.dtype, 2),
                     .dx = dz,
                     .gradients = d_experts,
                     .d_combine_weights = d_combine_weights_.raw()}));
  if (block.sequence_parallel && groups_.tensor.size() > 1) {
    const int64_t one = block.intermediate * block.hidden;
    const int64_t own = moe_.local_experts() * one;
    SP_RETURN_IF_ERROR(
        SumOverTensor(d_experts.router, config_.experts * block.hidden));
    SP_RETURN_IF_ERROR(SumOverTensor(d_experts.experts.gate, own));
    SP_RETURN_IF_ERROR(SumOverTensor(d_experts.experts.up, own));
    SP_RETURN_IF_ERROR(SumOverTensor(d_experts.experts.down, own));
  }
  SP_RETURN_IF_ERROR(norm2_.Backward({.z = z_.raw(),
                                      .weight = dense.norm2_weight,
                                      .dy = dz,
                                      .dz = dy,
                                      .dx = dz,
                                      .dweight = d_dense.norm2_weight,
                                      .dbias = d_dense.norm2_bias}));
  SP_RETURN_IF_ERROR(attention_.Backward(normed1_.data(), dense.attention, dz,
                                         dx, d_dense.attention));
  return norm1_.Backward({.z = x,
                          .weight = dense.norm1_weight,
                          .dy = dx,
                          .dz = dz,
                          .dx = dx,
                          .dweight = d_dense.norm1_weight,
                          .dbias = d_dense.norm1_bias});
}

}  // namespace shardproof
