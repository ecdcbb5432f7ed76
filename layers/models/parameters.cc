#include "layers/models/parameters.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

namespace shardproof::models {
namespace {

// Appends the tensors of one layer after another.
class Builder {
 public:
  Builder(const ModelConfig& config, int64_t tp, int64_t ep)
      : c_(config), tp_(tp), ep_(ep) {}

  std::vector<Parameter> Build() && {
    At(kEmbedding);
    Cut("embedding.word", LocalVocabulary(c_, tp_) * c_.hidden);
    if (c_.family == Family::kGpt2)
      Replicated("embedding.position", c_.max_positions * c_.hidden);
    for (int64_t layer = 0; layer < c_.layers; ++layer) {
      At(layer);
      Normalisation("norm1", c_.hidden);
      c_.is_latent() ? LatentAttention() : Attention();
      Normalisation("norm2", c_.hidden);
      c_.is_moe_layer(layer) ? Experts() : FeedForward("mlp", c_.intermediate);
    }
    At(c_.layers);
    Normalisation("norm", c_.hidden);
    if (!c_.tied_embeddings)
      Cut("head.weight", LocalVocabulary(c_, tp_) * c_.hidden);
    return std::move(parameters_);
  }

 private:
  void At(int64_t layer) {
    layer_ = layer;
    prefix_ = layer == kEmbedding || layer == c_.layers
                  ? ""
                  : fmt::format("layers.{}.", layer);
  }
  Parameter& Add(std::string_view name, int64_t count) {
    parameters_.push_back({.name = fmt::format("{}{}", prefix_, name),
                           .layer = layer_,
                           .count = count});
    return parameters_.back();
  }
  void Cut(std::string_view name, int64_t local) { Add(name, local); }
  void Replicated(std::string_view name, int64_t count) {
    Add(name, count).tensor_sum = TensorSum::kSequenceParallel;
  }

  void Normalisation(std::string_view name, int64_t width) {
    Replicated(fmt::format("{}.weight", name), width);
    if (c_.norm == Norm::kLayerNorm)
      Replicated(fmt::format("{}.bias", name), width);
  }

  void Attention() {
    const int64_t qkv = c_.heads / tp_ * c_.head_dim +
                        LocalKvHeads(c_, tp_) * (c_.head_dim + c_.v_head_dim);
    Cut("attention.qkv.weight", c_.hidden * qkv);
    if (c_.attention_bias) Cut("attention.qkv.bias", qkv);
    Output();
  }

  // The down-projections are small and replicated; only what follows them is cut by head.
  void LatentAttention() {
    const int64_t heads = c_.heads / tp_;
    if (c_.q_lora_rank > 0) {
      Replicated("attention.q_down.weight", c_.hidden * c_.q_lora_rank);
      if (c_.attention_bias)
        Replicated("attention.q_down.bias", c_.q_lora_rank);
      Replicated("attention.q_norm.weight", c_.q_lora_rank);
      Cut("attention.q_up.weight", c_.q_lora_rank * heads * c_.head_dim);
    } else {
      Cut("attention.q.weight", c_.hidden * heads * c_.head_dim);
    }
    const int64_t kv_latent = c_.kv_lora_rank + c_.qk_rope_head_dim;
    Replicated("attention.kv_down.weight", c_.hidden * kv_latent);
    if (c_.attention_bias) Replicated("attention.kv_down.bias", kv_latent);
    Replicated("attention.kv_norm.weight", c_.kv_lora_rank);
    Cut("attention.kv_up.weight",
        c_.kv_lora_rank * heads * (c_.qk_nope_head_dim + c_.v_head_dim));
    Output();
  }

  void Output() {
    Cut("attention.out.weight", c_.heads / tp_ * c_.v_head_dim * c_.hidden);
    if (c_.attention_bias) Replicated("attention.out.bias", c_.hidden);
  }

  void FeedForward(std::string_view name, int64_t width) {
    const bool gated = c_.activation == Activation::kSwiGlu;
    const int64_t up = (gated ? 2 : 1) * width / tp_;
    const std::string_view first = gated ? "gate_up" : "up";
    Cut(fmt::format("{}.{}.weight", name, first), c_.hidden * up);
    if (c_.mlp_bias) Cut(fmt::format("{}.{}.bias", name, first), up);
    Cut(fmt::format("{}.down.weight", name), width / tp_ * c_.hidden);
    if (c_.mlp_bias) Replicated(fmt::format("{}.down.bias", name), c_.hidden);
  }

  void Experts() {
    Add("router.weight", c_.hidden * c_.experts).tensor_sum =
        TensorSum::kAlways;
    if (c_.router_bias) Add("router.bias", c_.experts).trained = false;
    const int64_t width = c_.experts / ep_ * (c_.moe_intermediate / tp_);
    Add("experts.gate_up.weight", 2 * width * c_.hidden).expert = true;
    Add("experts.down.weight", width * c_.hidden).expert = true;
    if (c_.shared_experts > 0)
      FeedForward("shared", c_.shared_experts * c_.moe_intermediate);
  }

  const ModelConfig& c_;
  const int64_t tp_;
  const int64_t ep_;
  int64_t layer_ = kEmbedding;
  std::string prefix_;
  std::vector<Parameter> parameters_;
};

}  // namespace

int64_t LocalKvHeads(const ModelConfig& config, int64_t tp) {
  return std::max<int64_t>(1, config.kv_heads / tp);
}

int64_t LocalVocabulary(const ModelConfig& config, int64_t tp) {
  return (config.vocabulary + tp - 1) / tp;
}

std::vector<Parameter> Parameters(const ModelConfig& config, int64_t tp,
                                  int64_t ep) {
  return Builder(config, tp, ep).Build();
}

int64_t ParameterCount(const ModelConfig& config) {
  int64_t count = 0;
  for (const Parameter& parameter : Parameters(config))
    count += parameter.count;
  return count;
}

int64_t ActiveParameterCount(const ModelConfig& config) {
  int64_t count = 0;
  for (const Parameter& parameter : Parameters(config)) {
    count += parameter.expert
                 ? parameter.count / config.experts * config.experts_per_token
                 : parameter.count;
  }
  return count;
}

}  // namespace shardproof::models
