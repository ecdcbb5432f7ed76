#include "layers/models/model_config.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <string>

#include "layers/models/catalog.h"

namespace shardproof::models {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::StartsWith;
using Json = nlohmann::json;

Json Gpt2() {
  return {{"model_type", "gpt2"}, {"n_embd", 48},
          {"n_head", 4},          {"n_layer", 3},
          {"n_inner", nullptr},   {"vocab_size", 101},
          {"n_positions", 64},    {"activation_function", "gelu_new"}};
}

Json Llama() {
  return {{"model_type", "llama"},    {"hidden_size", 64},
          {"intermediate_size", 96},  {"num_hidden_layers", 5},
          {"vocab_size", 101},        {"num_attention_heads", 8},
          {"num_key_value_heads", 2}, {"hidden_act", "silu"}};
}

Json Mixtral() {
  Json json = Llama();
  json.update({{"model_type", "mixtral"},
               {"num_local_experts", 6},
               {"num_experts_per_tok", 2}});
  return json;
}

Json DeepSeek() {
  Json json = Llama();
  json.update({{"model_type", "deepseek_v3"},
               {"num_key_value_heads", 8},
               {"q_lora_rank", 24},
               {"kv_lora_rank", 16},
               {"qk_nope_head_dim", 12},
               {"qk_rope_head_dim", 4},
               {"v_head_dim", 10},
               {"n_routed_experts", 16},
               {"num_experts_per_tok", 4},
               {"n_shared_experts", 1},
               {"moe_intermediate_size", 20},
               {"first_k_dense_replace", 1}});
  return json;
}

StatusOr<ModelConfig> Parse(const Json& json) {
  return ParseModelConfig(json.dump(), "dir/config.json", "toy");
}

Json With(Json json, const char* key, Json value) {
  json[key] = std::move(value);
  return json;
}

Json Without(Json json, const char* key) {
  json.erase(key);
  return json;
}

std::string ErrorOf(const Json& json) {
  const StatusOr<ModelConfig> config = Parse(json);
  EXPECT_FALSE(config.ok()) << json.dump();
  if (config.ok()) return "";
  EXPECT_EQ(config.status().code(), StatusCode::kInvalidArgument);
  std::string message(config.status().message());
  EXPECT_THAT(message, StartsWith("dir/config.json: "));
  EXPECT_EQ(message.find('\n'), std::string::npos) << message;
  EXPECT_LT(message.size(), 400u) << message;
  return message;
}

TEST(ModelConfig, ReadsGpt2) {
  const StatusOr<ModelConfig> config = Parse(Gpt2());
  ASSERT_TRUE(config.ok()) << config.status().ToString();
  EXPECT_EQ(config->name, "toy");
  EXPECT_EQ(config->family, Family::kGpt2);
  EXPECT_EQ(config->hidden, 48);
  EXPECT_EQ(config->intermediate, 4 * 48);
  EXPECT_EQ(config->layers, 3);
  EXPECT_EQ(config->heads, 4);
  EXPECT_EQ(config->kv_heads, 4);
  EXPECT_EQ(config->head_dim, 12);
  EXPECT_EQ(config->v_head_dim, 12);
  EXPECT_EQ(config->vocabulary, 101);
  EXPECT_EQ(config->max_positions, 64);
  EXPECT_EQ(config->rope_theta, 0);
  EXPECT_EQ(config->activation, Activation::kGeluTanh);
  EXPECT_EQ(config->norm, Norm::kLayerNorm);
  EXPECT_TRUE(config->tied_embeddings);
  EXPECT_TRUE(config->attention_bias);
  EXPECT_TRUE(config->mlp_bias);
  EXPECT_EQ(Parse(With(Gpt2(), "n_inner", 100))->intermediate, 100);
}

TEST(ModelConfig, ReadsLlama) {
  const StatusOr<ModelConfig> config =
      Parse(With(Llama(), "rope_theta", 500000));
  ASSERT_TRUE(config.ok()) << config.status().ToString();
  EXPECT_EQ(config->family, Family::kLlama);
  EXPECT_EQ(config->hidden, 64);
  EXPECT_EQ(config->intermediate, 96);
  EXPECT_EQ(config->heads, 8);
  EXPECT_EQ(config->kv_heads, 2);
  EXPECT_EQ(config->head_dim, 8);
  EXPECT_EQ(config->rope_theta, 500000);
  EXPECT_EQ(config->activation, Activation::kSwiGlu);
  EXPECT_EQ(config->norm, Norm::kRmsNorm);
  EXPECT_FALSE(config->tied_embeddings);
  EXPECT_FALSE(config->attention_bias);
  EXPECT_FALSE(config->is_moe());
  EXPECT_FALSE(config->is_latent());

  EXPECT_EQ(Parse(Without(Llama(), "num_key_value_heads"))->kv_heads, 8)
      << "absent: one KV head per query head";
  EXPECT_EQ(Parse(With(Llama(), "head_dim", 16))->head_dim, 16);
  EXPECT_TRUE(
      Parse(With(Llama(), "tie_word_embeddings", true))->tied_embeddings);
}

TEST(ModelConfig, ReadsMixtral) {
  const StatusOr<ModelConfig> config = Parse(Mixtral());
  ASSERT_TRUE(config.ok()) << config.status().ToString();
  EXPECT_EQ(config->family, Family::kMixtral);
  EXPECT_EQ(config->experts, 6);
  EXPECT_EQ(config->experts_per_token, 2);
  EXPECT_EQ(config->shared_experts, 0);
  EXPECT_EQ(config->moe_intermediate, 96);
  EXPECT_TRUE(config->is_moe_layer(0));
}

TEST(ModelConfig, ReadsDeepSeekV3) {
  const StatusOr<ModelConfig> config = Parse(DeepSeek());
  ASSERT_TRUE(config.ok()) << config.status().ToString();
  EXPECT_EQ(config->family, Family::kDeepSeekV3);
  EXPECT_TRUE(config->is_latent());
  EXPECT_EQ(config->q_lora_rank, 24);
  EXPECT_EQ(config->kv_lora_rank, 16);
  EXPECT_EQ(config->head_dim, 12 + 4);
  EXPECT_EQ(config->v_head_dim, 10);
  EXPECT_EQ(config->experts, 16);
  EXPECT_EQ(config->experts_per_token, 4);
  EXPECT_EQ(config->shared_experts, 1);
  EXPECT_EQ(config->moe_intermediate, 20);
  EXPECT_FALSE(config->is_moe_layer(0));
  EXPECT_TRUE(config->is_moe_layer(1));
  EXPECT_EQ(Parse(With(DeepSeek(), "q_lora_rank", nullptr))->q_lora_rank, 0);
}

TEST(ModelConfig, IgnoresUnknownKeys) {
  Json json = Llama();
  json.update({{"architectures", {"LlamaForCausalLM"}},
               {"rope_scaling", {{"factor", 8.0}}},
               {"n_embd", "nonsense"}});
  EXPECT_TRUE(Parse(json).ok());
}

TEST(ModelConfig, NamesEveryMissingKey) {
  const auto check = [](const Json& json,
                        std::initializer_list<const char*> keys) {
    ASSERT_TRUE(Parse(json).ok()) << Parse(json).status().ToString();
    for (const char* key : keys) {
      EXPECT_THAT(ErrorOf(Without(json, key)),
                  HasSubstr("\"" + std::string(key) + "\" is missing; add it"));
      EXPECT_THAT(ErrorOf(With(json, key, nullptr)),
                  HasSubstr("\"" + std::string(key) + "\" is null; set it"));
    }
  };
  check(Gpt2(), {"model_type", "n_embd", "n_head", "n_layer", "vocab_size",
                 "n_positions"});
  check(Llama(),
        {"model_type", "hidden_size", "intermediate_size", "num_hidden_layers",
         "vocab_size", "num_attention_heads", "hidden_act"});
  check(Mixtral(), {"num_local_experts", "num_experts_per_tok"});
  check(DeepSeek(), {"kv_lora_rank", "qk_nope_head_dim", "qk_rope_head_dim",
                     "v_head_dim", "n_routed_experts", "num_experts_per_tok",
                     "moe_intermediate_size", "first_k_dense_replace"});
}

TEST(ModelConfig, RefusesWhatIsNotAPositiveWholeNumber) {
  const Json deep =
      Json::parse(std::string(2000, '[') + std::string(2000, ']'));
  for (const char* key :
       {"hidden_size", "intermediate_size", "num_hidden_layers",
        "num_attention_heads", "vocab_size", "num_key_value_heads",
        "max_position_embeddings", "head_dim"}) {
    for (const Json& value :
         {Json(0), Json(-1), Json(64.0), Json("64"), Json(true),
          Json::array({64}), Json::object(), deep, Json(1e300),
          Json(uint64_t{1} << 63), Json(INT64_MIN), Json(int64_t{1} << 31)}) {
      EXPECT_THAT(ErrorOf(With(Llama(), key, value)),
                  AllOf(HasSubstr("\"" + std::string(key) + "\" is "),
                        HasSubstr("whole number from 1 to")));
    }
  }
  // More digits than any type holds.
  const StatusOr<ModelConfig> huge = ParseModelConfig(
      R"({"model_type": "llama", "hidden_size": 99999999999999999999999999999999999999999999})",
      "config.json");
  ASSERT_FALSE(huge.ok());
  EXPECT_THAT(huge.status().message(),
              HasSubstr("\"hidden_size\" is 1e+44; set it to a whole number"));
}

TEST(ModelConfig, RefusesOtherWrongTypes) {
  EXPECT_THAT(ErrorOf(With(Llama(), "rope_theta", "big")),
              HasSubstr("\"rope_theta\" is \"big\"; set it to a positive"));
  EXPECT_THAT(ErrorOf(With(Llama(), "rope_theta", -1)),
              HasSubstr("\"rope_theta\" is -1"));
  EXPECT_THAT(ErrorOf(With(Llama(), "tie_word_embeddings", 1)),
              HasSubstr("set it to true or false"));
  EXPECT_THAT(ErrorOf(With(Llama(), "model_type", 3)),
              HasSubstr("\"model_type\" is 3; set it to a text"));
  EXPECT_THAT(ErrorOf(With(DeepSeek(), "n_shared_experts", -1)),
              HasSubstr("whole number from 0 to"));
}

TEST(ModelConfig, RefusesSizesThatDoNotFitTogether) {
  EXPECT_THAT(ErrorOf(With(Llama(), "num_attention_heads", 6)),
              HasSubstr("\"hidden_size\" (64) is not a multiple of "
                        "\"num_attention_heads\" (6); correct one of them or"));
  EXPECT_TRUE(
      Parse(With(With(Llama(), "num_attention_heads", 6), "head_dim", 8)).ok());
  EXPECT_THAT(ErrorOf(With(Gpt2(), "n_head", 5)),
              HasSubstr("\"n_embd\" (48) is not a multiple of \"n_head\" (5)"));
  EXPECT_THAT(ErrorOf(With(Llama(), "num_key_value_heads", 3)),
              HasSubstr("\"num_attention_heads\" (8) is not a multiple of "
                        "\"num_key_value_heads\" (3)"));
  EXPECT_THAT(ErrorOf(With(Llama(), "num_key_value_heads", 16)),
              HasSubstr("is not a multiple of"));
  EXPECT_THAT(ErrorOf(With(Mixtral(), "num_experts_per_tok", 7)),
              HasSubstr("\"num_experts_per_tok\" (7) must be from 1 to "
                        "\"num_local_experts\" (6)"));
  EXPECT_THAT(ErrorOf(With(DeepSeek(), "first_k_dense_replace", 6)),
              HasSubstr("must be from 0 to"));
  EXPECT_THAT(ErrorOf(With(DeepSeek(), "num_key_value_heads", 2)),
              HasSubstr("latent attention"));
  EXPECT_THAT(ErrorOf(With(DeepSeek(), "moe_layer_freq", 2)),
              HasSubstr("only 1 is supported"));
}

TEST(ModelConfig, RefusesSizesWhoseProductsOverflow) {
  EXPECT_THAT(ErrorOf(With(Llama(), "hidden_size", 1 << 30)),
              HasSubstr("whole number from 1 to 16777216"));
  EXPECT_THAT(ErrorOf(With(Llama(), "num_hidden_layers", 1 << 20)),
              HasSubstr("from 1 to 65536"));
  Json json = Mixtral();
  json.update({{"hidden_size", 1 << 20},
               {"intermediate_size", 1 << 24},
               {"num_hidden_layers", 1 << 16},
               {"num_local_experts", 1 << 16},
               {"head_dim", 8}});
  EXPECT_THAT(ErrorOf(json), HasSubstr("parameters, beyond the limit"));
}

TEST(ModelConfig, RefusesOtherArchitectures) {
  EXPECT_THAT(ErrorOf(With(Llama(), "model_type", "bert")),
              AllOf(HasSubstr("\"bert\" is not supported"),
                    HasSubstr("gpt2, llama, mixtral or deepseek_v3")));
  EXPECT_THAT(ErrorOf(With(Llama(), "hidden_act", "gelu")),
              HasSubstr("only \"silu\" is supported"));
  EXPECT_THAT(ErrorOf(With(Gpt2(), "activation_function", "relu")),
              HasSubstr("only \"gelu_new\" is supported"));
  EXPECT_THAT(ErrorOf(With(Llama(), "model_type", std::string(100000, 'x'))),
              HasSubstr("not supported"));
}

TEST(ModelConfig, SaysWhereJsonIsMalformed) {
  const StatusOr<ModelConfig> config = ParseModelConfig(
      "{\n  \"model_type\": \"llama\",,\n}", "dir/config.json");
  ASSERT_FALSE(config.ok());
  EXPECT_THAT(
      config.status().message(),
      StartsWith("dir/config.json: malformed JSON at line 2, column 25: "));
  for (const char* text : {"[]", "3", "\"text\"", "null", "{}"}) {
    EXPECT_FALSE(ParseModelConfig(text, "config.json").ok()) << text;
  }
  EXPECT_THAT(ParseModelConfig("[]", "config.json").status().message(),
              HasSubstr("holds an array"));
  EXPECT_FALSE(ParseModelConfig("{\"model_type\": 1e999}", "config.json").ok());
  EXPECT_FALSE(
      ParseModelConfig("{\"model_type\": \"\xff\xfe\"}", "config.json").ok());
  EXPECT_FALSE(ParseModelConfig(std::string(1 << 20, '['), "config.json").ok())
      << "deep nesting must not overflow";
}

TEST(ModelConfig, EveryTruncationAndEveryDamagedByteIsSurvived) {
  for (const EmbeddedConfig& embedded : EmbeddedConfigs()) {
    std::string text(embedded.json);
    text.erase(text.find_last_not_of(" \n") + 1);
    ASSERT_TRUE(ParseModelConfig(text, "whole").ok());
    for (size_t size = 0; size < text.size(); ++size) {
      const StatusOr<ModelConfig> config =
          ParseModelConfig(text.substr(0, size), "cut");
      ASSERT_FALSE(config.ok()) << embedded.name << " cut at " << size;
      EXPECT_THAT(config.status().message(),
                  AllOf(StartsWith("cut: malformed JSON at line "),
                        HasSubstr("complete?")));
    }
    // A damaged byte may leave a valid config (another digit); what is accepted must be valid.
    for (size_t at = 0; at < text.size(); ++at) {
      for (const char byte : {'\0', '"', '}', '9', '-', '\xff'}) {
        std::string damaged = text;
        damaged[at] = byte;
        const StatusOr<ModelConfig> config =
            ParseModelConfig(damaged, "damaged");
        if (config.ok()) {
          EXPECT_TRUE(Validate(*config, "damaged").ok());
        } else {
          EXPECT_THAT(config.status().message(), StartsWith("damaged: "));
        }
      }
    }
  }
}

TEST(LoadModelConfig, NamesTheModelAfterItsFileOrFolder) {
  const std::filesystem::path folder =
      std::filesystem::path(testing::TempDir()) / "Toy-1B";
  std::filesystem::create_directories(folder);
  for (const char* file : {"config.json", "other.json"})
    std::ofstream(folder / file) << Llama().dump();
  EXPECT_EQ(LoadModelConfig((folder / "config.json").string())->name, "Toy-1B");
  EXPECT_EQ(LoadModelConfig((folder / "other.json").string())->name, "other");

  const Status is_folder = LoadModelConfig(folder.string()).status();
  EXPECT_THAT(
      is_folder.message(),
      AllOf(HasSubstr("Toy-1B"), HasSubstr("give the config.json inside it")));
  const Status absent =
      LoadModelConfig((folder / "absent.json").string()).status();
  EXPECT_THAT(absent.message(),
              AllOf(HasSubstr("absent.json"), HasSubstr("cannot be opened")));
  std::ofstream(folder / "cut.json") << "{\"model_type\": \"lla";
  EXPECT_THAT(
      LoadModelConfig((folder / "cut.json").string()).status().message(),
      AllOf(HasSubstr("cut.json: malformed JSON at line 1"),
            HasSubstr("is the file complete?")));
  std::ofstream(folder / "large.json")
      << std::string((size_t{16} << 20) + 1, ' ');
  EXPECT_THAT(
      LoadModelConfig((folder / "large.json").string()).status().message(),
      HasSubstr("larger than 16 MiB"));
}

}  // namespace
}  // namespace shardproof::models
