#include "layers/models/model_config.h"

#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <system_error>

#include "layers/models/json_reader.h"

namespace shardproof::models {
namespace {

// Limits that no real model comes near; with them products of two sizes and a count of layers fit an int64.
constexpr int64_t kMaxWidth = int64_t{1} << 24;
constexpr int64_t kMaxCount = int64_t{1} << 16;
constexpr int64_t kMaxPositions = int64_t{1} << 31;
constexpr double kMaxParameters = 0x1p56;
constexpr std::uintmax_t kMaxFileBytes = std::uintmax_t{16} << 20;

// What the families call the same size.
struct Keys {
  const char* hidden = "hidden_size";
  const char* intermediate = "intermediate_size";
  const char* layers = "num_hidden_layers";
  const char* heads = "num_attention_heads";
  const char* experts = "num_local_experts";
  const char* moe_intermediate = "intermediate_size";
  const char* max_positions = "max_position_embeddings";
};

Keys KeysOf(Family family) {
  Keys keys;
  if (family == Family::kGpt2) {
    return {.hidden = "n_embd",
            .intermediate = "n_inner",
            .layers = "n_layer",
            .heads = "n_head",
            .max_positions = "n_positions"};
  }
  if (family == Family::kDeepSeekV3) {
    keys.experts = "n_routed_experts";
    keys.moe_intermediate = "moe_intermediate_size";
  }
  return keys;
}

void ReadActivation(JsonReader& reader, const char* key,
                    std::string_view origin,
                    std::initializer_list<std::string_view> accepted) {
  const std::string value = reader.Text(key);
  for (const std::string_view name : accepted) {
    if (value == name) return;
  }
  reader.Fail(InvalidArgument(
      "{}: \"{}\" is \"{}\"; for this model_type only \"{}\" is supported",
      origin, key, value.substr(0, 40), *accepted.begin()));
}

// Source of keys and defaults: GPT2Config of Hugging Face transformers.
void ReadGpt2(JsonReader& reader, std::string_view origin,
              ModelConfig& config) {
  const Keys keys = KeysOf(Family::kGpt2);
  config.hidden = reader.Whole(keys.hidden);
  config.intermediate = reader.WholeOr(keys.intermediate, 4 * config.hidden);
  config.layers = reader.Whole(keys.layers);
  config.heads = reader.Whole(keys.heads);
  config.kv_heads = config.heads;
  config.vocabulary = reader.Whole("vocab_size");
  config.max_positions = reader.Whole(keys.max_positions);
  config.norm_epsilon = reader.PositiveOr("layer_norm_epsilon", 1e-5);
  config.norm = Norm::kLayerNorm;
  config.activation = Activation::kGeluTanh;
  config.attention_bias = true;
  config.mlp_bias = true;
  config.tied_embeddings = reader.FlagOr("tie_word_embeddings", true);
  if (reader.Has("activation_function")) {
    ReadActivation(reader, "activation_function", origin,
                   {"gelu_new", "gelu_pytorch_tanh"});
  }
}

// What Llama, Mixtral and DeepSeek-V3 have in common.
void ReadLlama(JsonReader& reader, std::string_view origin,
               ModelConfig& config) {
  const Keys keys = KeysOf(config.family);
  config.hidden = reader.Whole(keys.hidden);
  config.intermediate = reader.Whole(keys.intermediate);
  config.layers = reader.Whole(keys.layers);
  config.heads = reader.Whole(keys.heads);
  config.kv_heads = reader.WholeOr("num_key_value_heads", config.heads);
  config.vocabulary = reader.Whole("vocab_size");
  config.max_positions = reader.WholeOr(keys.max_positions, 0);
  config.rope_theta = reader.PositiveOr("rope_theta", 10000);
  config.norm_epsilon = reader.PositiveOr("rms_norm_eps", 1e-6);
  config.tied_embeddings = reader.FlagOr("tie_word_embeddings", false);
  config.attention_bias = reader.FlagOr("attention_bias", false);
  config.mlp_bias = reader.FlagOr("mlp_bias", false);
  ReadActivation(reader, "hidden_act", origin, {"silu", "swish"});
}

void ReadMixtral(JsonReader& reader, ModelConfig& config) {
  config.experts = reader.Whole("num_local_experts");
  config.experts_per_token = reader.Whole("num_experts_per_tok");
  config.moe_intermediate = config.intermediate;
}

void ReadDeepSeekV3(JsonReader& reader, ModelConfig& config,
                    std::string_view origin) {
  config.q_lora_rank = reader.WholeOr("q_lora_rank", 0);
  config.kv_lora_rank = reader.Whole("kv_lora_rank");
  config.qk_nope_head_dim = reader.Whole("qk_nope_head_dim");
  config.qk_rope_head_dim = reader.Whole("qk_rope_head_dim");
  config.v_head_dim = reader.Whole("v_head_dim");
  config.head_dim = config.qk_nope_head_dim + config.qk_rope_head_dim;
  config.experts = reader.Whole("n_routed_experts");
  config.experts_per_token = reader.Whole("num_experts_per_tok");
  config.shared_experts = reader.WholeOr("n_shared_experts", 0, /*least=*/0);
  config.moe_intermediate = reader.Whole("moe_intermediate_size");
  config.first_dense_layers =
      reader.Whole("first_k_dense_replace", /*least=*/0);
  config.router_bias = true;
  if (const int64_t every = reader.WholeOr("moe_layer_freq", 1);
      reader.status().ok() && every != 1) {
    reader.Fail(InvalidArgument(
        "{}: \"moe_layer_freq\" is {}; only 1 is supported", origin, every));
  }
}

// head_dim is optional where it is hidden / heads.
void ReadHeadDim(JsonReader& reader, std::string_view origin,
                 ModelConfig& config) {
  if (config.is_latent() || !reader.status().ok()) return;
  const Keys keys = KeysOf(config.family);
  config.head_dim =
      config.family == Family::kGpt2 ? 0 : reader.WholeOr("head_dim", 0);
  if (config.head_dim == 0 && reader.status().ok()) {
    if (config.hidden % config.heads != 0) {
      const char* remedy = config.family == Family::kGpt2
                               ? "correct one of them"
                               : "correct one of them or add \"head_dim\"";
      reader.Fail(InvalidArgument(
          "{}: \"{}\" ({}) is not a multiple of \"{}\" ({}); {}", origin,
          keys.hidden, config.hidden, keys.heads, config.heads, remedy));
      return;
    }
    config.head_dim = config.hidden / config.heads;
  }
  config.v_head_dim = config.head_dim;
}

StatusOr<Family> ReadFamily(JsonReader& reader, std::string_view origin) {
  const std::string type = reader.Text("model_type");
  SP_RETURN_IF_ERROR(reader.status());
  for (const Family family :
       {Family::kGpt2, Family::kLlama, Family::kMixtral, Family::kDeepSeekV3}) {
    if (type == Name(family)) return family;
  }
  return InvalidArgument(
      "{}: the model_type \"{}\" is not supported; use a config of the "
      "families gpt2, llama, mixtral or deepseek_v3",
      origin, type.substr(0, 40));
}

Status InRange(std::string_view origin, const char* key, int64_t value,
               int64_t least, int64_t most) {
  if (value >= least && value <= most) return Status();
  return InvalidArgument(
      "{}: \"{}\" is {}; set it to a whole number from {} to {}", origin, key,
      value, least, most);
}

// An upper bound of the parameter count, within a few percent, in floating point where nothing overflows.
double RoughParameters(const ModelConfig& c) {
  const double hidden = c.hidden, heads = c.heads;
  const double attention =
      hidden * heads * (2.0 * c.head_dim + 2.0 * c.v_head_dim) +
      hidden * (static_cast<double>(c.q_lora_rank) + c.kv_lora_rank) +
      heads * (static_cast<double>(c.q_lora_rank) + c.kv_lora_rank) *
          (c.head_dim + c.v_head_dim);
  const double experts = static_cast<double>(c.experts) + c.shared_experts;
  const double feed_forward =
      3.0 * hidden *
      (static_cast<double>(c.intermediate) + experts * c.moe_intermediate);
  return c.layers * (attention + feed_forward) +
         hidden * (2.0 * c.vocabulary + c.max_positions);
}

Status ValidateExperts(const ModelConfig& c, std::string_view origin) {
  const Keys keys = KeysOf(c.family);
  SP_RETURN_IF_ERROR(InRange(origin, keys.experts, c.experts, 1, kMaxCount));
  SP_RETURN_IF_ERROR(
      InRange(origin, keys.moe_intermediate, c.moe_intermediate, 1, kMaxWidth));
  SP_RETURN_IF_ERROR(
      InRange(origin, "n_shared_experts", c.shared_experts, 0, kMaxCount));
  if (c.experts_per_token < 1 || c.experts_per_token > c.experts) {
    return InvalidArgument(
        "{}: \"num_experts_per_tok\" ({}) must be from 1 to \"{}\" ({}); "
        "correct one of them",
        origin, c.experts_per_token, keys.experts, c.experts);
  }
  if (c.first_dense_layers < 0 || c.first_dense_layers > c.layers) {
    return InvalidArgument(
        "{}: \"first_k_dense_replace\" ({}) must be from 0 to \"{}\" ({}); "
        "correct one of them",
        origin, c.first_dense_layers, keys.layers, c.layers);
  }
  return Status();
}

}  // namespace

std::string_view Name(Family family) {
  switch (family) {
    case Family::kGpt2:
      return "gpt2";
    case Family::kLlama:
      return "llama";
    case Family::kMixtral:
      return "mixtral";
    case Family::kDeepSeekV3:
      return "deepseek_v3";
  }
  return "unknown";
}

Status Validate(const ModelConfig& c, std::string_view origin) {
  const Keys keys = KeysOf(c.family);
  SP_RETURN_IF_ERROR(InRange(origin, keys.hidden, c.hidden, 1, kMaxWidth));
  SP_RETURN_IF_ERROR(
      InRange(origin, keys.intermediate, c.intermediate, 1, kMaxWidth));
  SP_RETURN_IF_ERROR(InRange(origin, keys.layers, c.layers, 1, kMaxCount));
  SP_RETURN_IF_ERROR(InRange(origin, keys.heads, c.heads, 1, kMaxCount));
  SP_RETURN_IF_ERROR(
      InRange(origin, "num_key_value_heads", c.kv_heads, 1, kMaxCount));
  SP_RETURN_IF_ERROR(InRange(origin, "vocab_size", c.vocabulary, 1, kMaxWidth));
  SP_RETURN_IF_ERROR(InRange(origin, keys.max_positions, c.max_positions,
                             c.family == Family::kGpt2 ? 1 : 0, kMaxPositions));
  SP_RETURN_IF_ERROR(InRange(origin, "head_dim", c.head_dim, 1, kMaxCount));
  SP_RETURN_IF_ERROR(InRange(origin, "v_head_dim", c.v_head_dim, 1, kMaxCount));
  SP_RETURN_IF_ERROR(
      InRange(origin, "q_lora_rank", c.q_lora_rank, 0, kMaxWidth));
  SP_RETURN_IF_ERROR(
      InRange(origin, "kv_lora_rank", c.kv_lora_rank, 0, kMaxWidth));
  if (c.heads % c.kv_heads != 0) {
    return InvalidArgument(
        "{}: \"{}\" ({}) is not a multiple of \"num_key_value_heads\" ({}); "
        "correct one of them",
        origin, keys.heads, c.heads, c.kv_heads);
  }
  if (c.is_latent() && c.head_dim != c.qk_nope_head_dim + c.qk_rope_head_dim) {
    return InvalidArgument(
        "{}: head_dim ({}) is not \"qk_nope_head_dim\" ({}) plus "
        "\"qk_rope_head_dim\" ({})",
        origin, c.head_dim, c.qk_nope_head_dim, c.qk_rope_head_dim);
  }
  if (c.is_latent() && c.kv_heads != c.heads) {
    return InvalidArgument(
        "{}: \"num_key_value_heads\" ({}) must equal \"{}\" ({}) with latent "
        "attention; correct it",
        origin, c.kv_heads, keys.heads, c.heads);
  }
  if (c.is_moe()) SP_RETURN_IF_ERROR(ValidateExperts(c, origin));
  if (const double parameters = RoughParameters(c);
      parameters >= kMaxParameters) {
    return InvalidArgument(
        "{}: describes a model of about {:.1e} parameters, beyond the limit of "
        "{:.1e}; correct \"{}\", "
        "\"{}\" or \"{}\"",
        origin, parameters, kMaxParameters, keys.hidden, keys.intermediate,
        keys.layers);
  }
  return Status();
}

StatusOr<ModelConfig> ParseModelConfig(std::string_view json,
                                       std::string_view origin,
                                       std::string_view name) {
  SP_ASSIGN_OR_RETURN(const nlohmann::json object, ParseObject(json, origin));
  JsonReader reader(object, origin);
  ModelConfig config;
  config.name = name.empty() ? origin : name;
  SP_ASSIGN_OR_RETURN(config.family, ReadFamily(reader, origin));
  if (config.family == Family::kGpt2) {
    ReadGpt2(reader, origin, config);
  } else {
    ReadLlama(reader, origin, config);
  }
  if (config.family == Family::kMixtral) ReadMixtral(reader, config);
  if (config.family == Family::kDeepSeekV3)
    ReadDeepSeekV3(reader, config, origin);
  ReadHeadDim(reader, origin, config);
  SP_RETURN_IF_ERROR(reader.status());
  SP_RETURN_IF_ERROR(Validate(config, origin));
  return config;
}

StatusOr<ModelConfig> LoadModelConfig(const std::string& path) {
  const std::filesystem::path file(path);
  std::error_code error;
  if (std::filesystem::is_directory(file, error)) {
    return InvalidArgument("{}: is a folder; give the config.json inside it",
                           path);
  }
  std::ifstream in(file, std::ios::binary);
  if (!in)
    return InvalidArgument(
        "{}: cannot be opened; check the path and its permissions", path);
  // Read at most one byte beyond the limit: the path may be a device that never ends.
  std::string text(kMaxFileBytes + 1, '\0');
  in.read(text.data(), static_cast<std::streamsize>(text.size()));
  if (in.bad()) return InvalidArgument("{}: cannot be read", path);
  text.resize(static_cast<size_t>(in.gcount()));
  if (text.size() > kMaxFileBytes) {
    return InvalidArgument("{}: is larger than {} MiB; is it a config.json?",
                           path, kMaxFileBytes >> 20);
  }
  const std::filesystem::path folder =
      std::filesystem::absolute(file, error).parent_path().filename();
  return ParseModelConfig(text, path,
                          file.filename() == "config.json"
                              ? folder.string()
                              : file.stem().string());
}

}  // namespace shardproof::models
