// The hyper-parameters of a transformer, read from a Hugging Face config.json.
//
//   SP_ASSIGN_OR_RETURN(ModelConfig config, models::LoadModelConfig("Llama-3.1-8B/config.json"));
//   config.hidden;    // 4096
//   config.kv_heads;  // 8
//
// Four families are understood: GPT-2, Llama, Mixtral and DeepSeek-V3. Everything the suite derives from a model (layer
// shapes, parameter counts, message sizes) is a function of this struct alone. Sizes are in elements.
#ifndef SHARDPROOF_LAYERS_MODELS_MODEL_CONFIG_H_
#define SHARDPROOF_LAYERS_MODELS_MODEL_CONFIG_H_

#include <cstdint>
#include <string>
#include <string_view>

#include "reference/status.h"

namespace shardproof::models {

enum class Family { kGpt2, kLlama, kMixtral, kDeepSeekV3 };
enum class Activation { kGeluTanh, kSwiGlu };
enum class Norm { kLayerNorm, kRmsNorm };

// The `model_type` of config.json: "gpt2", "llama", "mixtral", "deepseek_v3".
std::string_view Name(Family family);

struct ModelConfig {
  std::string name;
  Family family = Family::kLlama;
  int64_t hidden = 0;
  int64_t intermediate = 0;  // Feed-forward width of a dense block.
  int64_t layers = 0;
  int64_t heads = 0;
  int64_t kv_heads = 0;
  int64_t head_dim =
      0;  // Width of one query and one key; with latent attention qk_nope + qk_rope.
  int64_t v_head_dim =
      0;  // Width of one value; equals head_dim but for latent attention.
  int64_t vocabulary = 0;
  int64_t max_positions =
      0;  // 0: not stated. Learned positions (GPT-2) always state it.
  double rope_theta = 0;  // 0: no rotary embedding.
  double norm_epsilon = 1e-5;
  Activation activation = Activation::kSwiGlu;
  Norm norm = Norm::kRmsNorm;
  bool tied_embeddings =
      false;  // The output projection is the transposed word embedding.
  bool attention_bias = false;  // On the QKV and output projections.
  bool mlp_bias = false;

  // Mixture of experts; experts == 0 for a dense model.
  int64_t experts = 0;
  int64_t experts_per_token = 0;
  int64_t shared_experts = 0;
  int64_t moe_intermediate = 0;  // Feed-forward width of one expert.
  int64_t first_dense_layers =
      0;  // Layers before the first mixture of experts.
  bool router_bias =
      false;  // DeepSeek-V3's load-balancing correction, one number per expert, no gradient.

  // Multi-head latent attention (DeepSeek-V2, arXiv:2405.04434, section 2.1); kv_lora_rank == 0 without it.
  int64_t q_lora_rank = 0;  // 0: the query is projected directly.
  int64_t kv_lora_rank = 0;
  int64_t qk_nope_head_dim = 0;
  int64_t qk_rope_head_dim = 0;

  bool is_moe() const { return experts > 0; }
  bool is_latent() const { return kv_lora_rank > 0; }
  bool is_moe_layer(int64_t layer) const {
    return is_moe() && layer >= first_dense_layers;
  }
};

// Checks that the numbers are positive, fit together, and describe a model of fewer than 2^56 parameters, so that no
// size derived from them overflows an int64. The message names `origin` and the key of the family's config.json.
Status Validate(const ModelConfig& config, std::string_view origin);

// Reads the text of a config.json. `origin` is what messages call it, and `name` becomes the model's name. Unknown keys
// are ignored. InvalidArgument, in one sentence that names the origin, the key and what to do, on malformed or
// truncated JSON, an unsupported model_type or activation, a missing key, a wrong type or value, or sizes that do not
// fit together.
StatusOr<ModelConfig> ParseModelConfig(std::string_view json,
                                       std::string_view origin,
                                       std::string_view name = "");

// Reads a file. The name is that of the folder for ".../config.json", and the file's own stem otherwise.
StatusOr<ModelConfig> LoadModelConfig(const std::string& path);

}  // namespace shardproof::models

#endif  // SHARDPROOF_LAYERS_MODELS_MODEL_CONFIG_H_
