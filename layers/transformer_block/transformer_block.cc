#include "layers/transformer_block/transformer_block.h"

#include <string>
#include <utility>

#include "collectives/chunks.h"
#include "layers/kernels/activation.h"
#include "layers/tensor_parallel/agree.h"

namespace shardproof {
namespace {

const char* Name(Recomputation recompute) {
  switch (recompute) {
    case Recomputation::kNone:
      return "nothing";
    case Recomputation::kSelective:
      return "attention's core";
    case Recomputation::kFull:
      return "everything";
  }
  return "unknown";
}

RegionShape Outside(const TransformerBlockConfig& config) {
  return {.tokens = config.tokens(),
          .width = config.hidden,
          .dtype = config.dtype,
          .sequence_parallel = config.sequence_parallel};
}

// y += x, n elements.
Status Add(const Stream& stream, DType dtype, int64_t n, const void* x,
           void* y) {
  return AddBias(stream, dtype, 1, n, x, y);
}

}  // namespace

ParallelAttentionConfig AttentionConfigOf(
    const TransformerBlockConfig& config) {
  return {.sequences = config.sequences,
          .length = config.length,
          .hidden = config.hidden,
          .heads = config.heads,
          .kv_heads = config.kv_heads,
          .head_dim = config.head_dim,
          .causal = config.causal,
          .rope_theta = config.rope_theta,
          .positions = config.positions,
          .dtype = config.dtype,
          .bias = config.bias,
          .sequence_parallel = config.sequence_parallel,
          .recompute_core = config.recompute == Recomputation::kSelective,
          .sum_shared = config.sum_shared};
}

ParallelMlpConfig MlpConfigOf(const TransformerBlockConfig& config) {
  return {.tokens = config.tokens(),
          .hidden = config.hidden,
          .intermediate = config.intermediate,
          .activation = config.activation,
          .dtype = config.dtype,
          .bias = config.bias,
          .sequence_parallel = config.sequence_parallel};
}

ParallelNormConfig NormConfigOf(const TransformerBlockConfig& config,
                                bool residual) {
  return {.kind = config.norm,
          .tokens = config.tokens(),
          .hidden = config.hidden,
          .epsilon = config.epsilon,
          .dtype = config.dtype,
          .bias = config.norm == NormKind::kLayerNorm,
          .residual = residual,
          .sequence_parallel = config.sequence_parallel};
}

TransformerBlock::TransformerBlock(const TransformerBlockConfig& config,
                                   ParallelNorm norm1,
                                   ParallelAttention attention,
                                   ParallelNorm norm2, ParallelMlp mlp)
    : config_(config),
      norm1_(std::move(norm1)),
      attention_(std::move(attention)),
      norm2_(std::move(norm2)),
      mlp_(std::move(mlp)) {}

StatusOr<TransformerBlock> TransformerBlock::Create(
    const Communicator& comm, const TransformerBlockConfig& config,
    const CollectiveFamily& collectives, const AttentionCoreFactory& core) {
  // Everything else is in the descriptions of the parts.
  SP_RETURN_IF_ERROR(
      AgreeOnLayer(comm, fmt::format("transformer_block that recomputes {}",
                                     Name(config.recompute))));
  SP_ASSIGN_OR_RETURN(ParallelAttention attention,
                      ParallelAttention::Create(comm, AttentionConfigOf(config),
                                                collectives, core));
  SP_ASSIGN_OR_RETURN(
      ParallelMlp mlp,
      ParallelMlp::Create(comm, MlpConfigOf(config), collectives));
  SP_ASSIGN_OR_RETURN(
      ParallelNorm norm1,
      ParallelNorm::Create(comm, NormConfigOf(config, false), collectives));
  SP_ASSIGN_OR_RETURN(
      ParallelNorm norm2,
      ParallelNorm::Create(comm, NormConfigOf(config, true), collectives));
  TransformerBlock block(config, std::move(norm1), std::move(attention),
                         std::move(norm2), std::move(mlp));
  SP_RETURN_IF_ERROR(AgreeOnStatus(comm, block.Allocate(comm)));
  return block;
}

Status TransformerBlock::Allocate(const Communicator& comm) {
  const Shape shape = {local_tokens(), config_.hidden};
  SP_ASSIGN_OR_RETURN(z_, Tensor::Create(config_.dtype, shape));
  for (Buffer* buffer : {&normed1_, &normed2_, &dz_}) {
    SP_ASSIGN_OR_RETURN(*buffer,
                        comm.Allocate(static_cast<size_t>(z_.num_bytes())));
  }
  return OkStatus();
}

Status TransformerBlock::Forward(const void* x,
                                 const TransformerBlockWeights& weights,
                                 void* y, const Stream& stream) {
  SP_RETURN_IF_ERROR(norm1_.Forward({.x = x,
                                     .weight = weights.norm1_weight,
                                     .bias = weights.norm1_bias,
                                     .y = normed1_.data()},
                                    stream));
  // y holds what attention gives until it is in z.
  SP_RETURN_IF_ERROR(
      attention_.Forward(normed1_.data(), weights.attention, y, stream));
  SP_RETURN_IF_ERROR(norm2_.Forward({.x = y,
                                     .residual = x,
                                     .weight = weights.norm2_weight,
                                     .bias = weights.norm2_bias,
                                     .z = z_.raw(),
                                     .y = normed2_.data()},
                                    stream));
  SP_RETURN_IF_ERROR(mlp_.Forward(normed2_.data(), weights.mlp, y, stream));
  return Add(stream, config_.dtype, z_.num_elements(), z_.raw(), y);
}

Status TransformerBlock::Backward(const void* x,
                                  const TransformerBlockWeights& weights,
                                  const void* dy, void* dx,
                                  const TransformerBlockGradients& gradients,
                                  const Stream& stream) {
  // dx has room for the y that nobody wants.
  if (config_.recompute == Recomputation::kFull) {
    SP_RETURN_IF_ERROR(Forward(x, weights, dx, stream));
  }
  void* const dz = dz_.data();
  SP_RETURN_IF_ERROR(mlp_.Backward(normed2_.data(), weights.mlp, dy, dz,
                                   gradients.mlp, stream));
  SP_RETURN_IF_ERROR(norm2_.Backward({.z = z_.raw(),
                                      .weight = weights.norm2_weight,
                                      .dy = dz,
                                      .dz = dy,
                                      .dx = dz,
                                      .dweight = gradients.norm2_weight,
                                      .dbias = gradients.norm2_bias},
                                     stream));
  SP_RETURN_IF_ERROR(attention_.Backward(normed1_.data(), weights.attention, dz,
                                         dx, gradients.attention, stream));
  return norm1_.Backward({.z = x,
                          .weight = weights.norm1_weight,
                          .dy = dx,
                          .dz = dz,
                          .dx = dx,
                          .dweight = gradients.norm1_weight,
                          .dbias = gradients.norm1_bias},
                         stream);
}

int64_t TransformerBlock::ActivationBytes() const {
  return norm1_.kept_bytes() + attention_.kept_bytes() + norm2_.kept_bytes() +
         mlp_.kept_bytes() + z_.num_bytes() +
         static_cast<int64_t>(normed1_.bytes() + normed2_.bytes());
}

int64_t TransformerBlock::kept_bytes() const {
  return config_.recompute == Recomputation::kFull ? 0 : ActivationBytes();
}

int64_t TransformerBlock::working_bytes() const {
  return norm1_.working_bytes() + attention_.working_bytes() +
         norm2_.working_bytes() + mlp_.working_bytes() +
         static_cast<int64_t>(dz_.bytes()) + ActivationBytes() - kept_bytes();
}

// What the block's parts give each other lies in its own memory, which peers
// can address wherever the caller's tensors are.
Cost TransformerBlockForwardCost(int ranks,
                                 const TransformerBlockConfig& config,
                                 const CollectiveFamily& collectives) {
  CollectiveFamily own = collectives;
  own.memory = Memory::kShared;
  const Cost one = EnterCost(ranks, Outside(config), own) +
                   LeaveCost(ranks, Outside(config), collectives);
  return one + one;
}

Cost TransformerBlockBackwardCost(int ranks,
                                  const TransformerBlockConfig& config,
                                  const CollectiveFamily& collectives) {
  CollectiveFamily own = collectives;
  own.memory = Memory::kShared;
  const Cost enter = EnterCost(ranks, Outside(config), own);
  // dy of the caller enters, and dx of the caller leaves.
  Cost cost =
      EnterCost(ranks, Outside(config), collectives) + enter + enter + enter +
      LeaveCost(ranks, Outside(config), own) +
      LeaveCost(ranks, Outside(config), collectives) +
      ParallelNormBackwardCost(ranks, NormConfigOf(config, false), own) +
      ParallelNormBackwardCost(ranks, NormConfigOf(config, true), own);
  if (config.sum_shared) {
    cost +=
        SumSharedGradientsCost(ranks, AttentionConfigOf(config), collectives);
  }
  if (config.recompute == Recomputation::kFull) {
    cost += TransformerBlockForwardCost(ranks, config, collectives);
  }
  return cost;
}

TransformerBlockArithmetic ArithmeticOf(const TransformerBlockConfig& config,
                                        const Arithmetic& summed) {
  return {.norm = ParallelNormArithmetic(NormConfigOf(config, true), summed),
          .attention =
              ParallelAttentionArithmetic(AttentionConfigOf(config), summed),
          .mlp = ParallelMlpArithmetic(MlpConfigOf(config), summed)};
}

double ActivationBytesFormula(int ranks, const TransformerBlockConfig& config) {
  const auto t = static_cast<double>(ranks);
  const double sbh = static_cast<double>(config.tokens() * config.hidden);
  const double scores = 5 * static_cast<double>(config.heads) *
                        static_cast<double>(config.length) /
                        static_cast<double>(config.hidden);
  const double residual = config.sequence_parallel ? 1 / t : 1;
  switch (config.recompute) {
    case Recomputation::kNone:
      return sbh * (10 * residual + (24 + scores) / t);
    case Recomputation::kSelective:
      return sbh * (10 * residual + 24 / t);
    case Recomputation::kFull:
      return 2 * sbh * residual;
  }
  return 0;
}

}  // namespace shardproof
