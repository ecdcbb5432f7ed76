#include "layers/transformer_training/transformer_stack.h"

#include <cstring>
#include <utility>

#include "layers/kernels/activation.h"

namespace shardproof {
namespace {

template <class Void>
TransformerBlockParts<Void> PartsAt(
    const std::vector<BlockParameter>& parameters, DType dtype, Void* flat) {
  TransformerBlockParts<Void> parts;
  const auto place = [&](std::string_view name) -> Void*& {
    if (name == "norm1_w") return parts.norm1_weight;
    if (name == "norm1_b") return parts.norm1_bias;
    if (name == "w_qkv") return parts.attention.w_qkv;
    if (name == "b_qkv") return parts.attention.b_qkv;
    if (name == "w_out") return parts.attention.w_out;
    if (name == "b_out") return parts.attention.b_out;
    if (name == "norm2_w") return parts.norm2_weight;
    if (name == "norm2_b") return parts.norm2_bias;
    if (name == "w_gate") return parts.mlp.w_gate;
    if (name == "w_up") return parts.mlp.w_up;
    if (name == "b_up") return parts.mlp.b_up;
    if (name == "w_down") return parts.mlp.w_down;
    return parts.mlp.b_down;
  };
  for (const BlockParameter& p : parameters) {
    place(p.name) = At(flat, dtype, p.begin);
  }
  return parts;
}

}  // namespace

TransformerBlockWeights PartsOfBlock(const std::vector<BlockParameter>& all,
                                     DType dtype, const void* flat) {
  return PartsAt(all, dtype, flat);
}
TransformerBlockGradients PartsOfBlock(const std::vector<BlockParameter>& all,
                                       DType dtype, void* flat) {
  return PartsAt(all, dtype, flat);
}

std::vector<BlockParameter> BlockParametersOf(const TransformerBlockConfig& c) {
  const bool centred = c.norm == NormKind::kLayerNorm;
  const bool gated = c.activation == Activation::kSwiGlu;
  const int64_t h = c.hidden, f = c.intermediate, w = c.heads * c.head_dim;
  const int64_t fused = (c.heads + 2 * c.kv_heads) * c.head_dim;
  std::vector<BlockParameter> all;
  int64_t begin = 0;
  const auto add = [&](const char* name, const Shape& shape, bool has = true) {
    if (!has) return;
    all.push_back({name, shape, begin});
    begin += shape.NumElements();
  };
  add("norm1_w", {h});
  add("norm1_b", {h}, centred);
  add("w_qkv", {fused, h});
  add("b_qkv", {fused}, c.bias);
  add("w_out", {h, w});
  add("b_out", {h}, c.bias);
  add("norm2_w", {h});
  add("norm2_b", {h}, centred);
  add("w_gate", {f, h}, gated);
  add("w_up", {f, h});
  add("b_up", {f}, c.bias);
  add("w_down", {h, f});
  add("b_down", {h}, c.bias);
  return all;
}

int64_t BlockSize(const TransformerBlockConfig& block) {
  const BlockParameter last = BlockParametersOf(block).back();
  return last.begin + last.shape.NumElements();
}

StatusOr<TransformerStack> TransformerStack::Create(
    const Communicator& alone, const TransformerStackConfig& config) {
  if (alone.size() != 1) {
    return InvalidArgument("a replica is of one rank, not of {}", alone.size());
  }
  if (config.layers < 0 || config.sequences < 0 || config.micro_batches < 1) {
    return InvalidArgument("{} layers, {} sequences in {} micro-batches",
                           config.layers, config.sequences,
                           config.micro_batches);
  }
  TransformerStack stack(config);
  stack.parameters_ = BlockParametersOf(config.block);
  stack.size_ = BlockSize(config.block);
  TransformerBlockConfig block = config.block;
  const DType dtype = block.dtype;
  const int64_t most = stack.SequencesOf(0);
  const int64_t least = stack.SequencesOf(config.micro_batches - 1);
  const auto add = [&](int64_t sequences,
                       std::vector<TransformerBlock>& to) -> Status {
    block.sequences = sequences;
    SP_ASSIGN_OR_RETURN(TransformerBlock made,
                        TransformerBlock::Create(alone, block));
    to.push_back(std::move(made));
    return OkStatus();
  };
  for (int l = 0; l < config.layers; ++l) {
    if (most > 0) SP_RETURN_IF_ERROR(add(most, stack.larger_));
    if (least > 0 && least < most) {
      SP_RETURN_IF_ERROR(add(least, stack.smaller_));
    }
    for (auto* const tensors : {&stack.outputs_, &stack.input_gradients_}) {
      tensors->push_back(
          Tensor::Zeros(dtype, {most * block.length, block.hidden}));
    }
  }
  if (config.micro_batches > 1) {
    stack.aside_ = Tensor::Zeros(dtype, {stack.size_});
  }
  return stack;
}

TransformerBlock& TransformerStack::BlockOf(int micro, size_t layer) {
  return SequencesOf(micro) == SequencesOf(0) ? larger_[layer]
                                              : smaller_[layer];
}

const void* TransformerStack::BatchPart(const void* batch, int micro) const {
  const int64_t begin =
      BalancedChunk(config_.sequences, config_.micro_batches, micro).begin;
  return At(batch, config_.block.dtype,
            begin * config_.block.length * config_.block.hidden);
}
const void* TransformerStack::Input(int micro, size_t layer) const {
  return layer == 0 ? BatchPart(x_, micro) : outputs_[layer - 1].raw();
}
const void* TransformerStack::OutputGradient(int micro, size_t layer) const {
  return layer + 1 == outputs_.size() ? BatchPart(dy_, micro)
                                      : input_gradients_[layer + 1].raw();
}

Status TransformerStack::Forward(int micro, size_t layer,
                                 const void* parameters) {
  if (SequencesOf(micro) == 0) return OkStatus();
  return BlockOf(micro, layer)
      .Forward(Input(micro, layer),
               PartsAt(parameters_, config_.block.dtype, parameters),
               outputs_[layer].raw());
}

Status TransformerStack::Backward(int micro, size_t layer,
                                  const void* parameters, void* gradients,
                                  bool accumulate) {
  const DType dtype = config_.block.dtype;
  if (SequencesOf(micro) == 0) {
    if (!accumulate) {
      std::memset(gradients, 0, static_cast<size_t>(size_ * SizeOf(dtype)));
    }
    return OkStatus();
  }
  void* const to = accumulate ? aside_.raw() : gradients;
  SP_RETURN_IF_ERROR(BlockOf(micro, layer)
                         .Backward(Input(micro, layer),
                                   PartsAt(parameters_, dtype, parameters),
                                   OutputGradient(micro, layer),
                                   input_gradients_[layer].raw(),
                                   PartsAt(parameters_, dtype, to)));
  if (!accumulate) return OkStatus();
  return AddBias(Stream::Inline(), dtype, 1, size_, to, gradients);
}

}  // namespace shardproof
