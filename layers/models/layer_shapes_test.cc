#include "layers/models/layer_shapes.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>

#include "layers/models/catalog.h"
#include "layers/models/parameters.h"

namespace shardproof::models {
namespace {

using ::testing::HasSubstr;

std::map<std::string, LinearShape> ByName(const char* model, int64_t sequence,
                                          int64_t micro_batch) {
  std::map<std::string, LinearShape> shapes;
  const StatusOr<std::vector<LinearShape>> all =
      LinearShapes(*FindModel(model), sequence, micro_batch);
  EXPECT_TRUE(all.ok()) << all.status().ToString();
  for (const LinearShape& shape : *all)
    EXPECT_TRUE(shapes.emplace(shape.name, shape).second) << shape.name;
  return shapes;
}

void ExpectShape(const LinearShape& shape, int64_t tokens, int64_t in,
                 int64_t out, Split split, int64_t times) {
  EXPECT_EQ(shape.tokens, tokens) << shape.name;
  EXPECT_EQ(shape.in, in) << shape.name;
  EXPECT_EQ(shape.out, out) << shape.name;
  EXPECT_EQ(shape.split, split) << shape.name;
  EXPECT_EQ(shape.times, times) << shape.name;
}

TEST(LinearShapes, OfLlama) {
  const auto shapes = ByName("llama-3.1-8b", 512, 2);
  ASSERT_EQ(shapes.size(), 5u);
  ExpectShape(shapes.at("qkv"), 1024, 4096, 6144, Split::kColumn, 32);
  ExpectShape(shapes.at("attention_out"), 1024, 4096, 4096, Split::kRow, 32);
  ExpectShape(shapes.at("gate_up"), 1024, 4096, 28672, Split::kColumn, 32);
  ExpectShape(shapes.at("down"), 1024, 14336, 4096, Split::kRow, 32);
  ExpectShape(shapes.at("lm_head"), 1024, 4096, 128256, Split::kColumn, 1);
  EXPECT_EQ(shapes.at("down").flops(), 2.0 * 1024 * 14336 * 4096);
  EXPECT_FALSE(shapes.at("qkv").bias);
}

TEST(LinearShapes, OfGpt2HaveBiases) {
  const auto shapes = ByName("gpt2", 1024, 1);
  ExpectShape(shapes.at("qkv"), 1024, 768, 2304, Split::kColumn, 12);
  ExpectShape(shapes.at("up"), 1024, 768, 3072, Split::kColumn, 12);
  EXPECT_TRUE(shapes.at("up").bias);
  EXPECT_FALSE(shapes.at("lm_head").bias);
}

TEST(LinearShapes, OfDeepSeekV3) {
  const auto shapes = ByName("deepseek-v3", 4096, 1);
  ExpectShape(shapes.at("q_down"), 4096, 7168, 1536, Split::kReplicated, 61);
  ExpectShape(shapes.at("q_up"), 4096, 1536, 24576, Split::kColumn, 61);
  ExpectShape(shapes.at("kv_down"), 4096, 7168, 576, Split::kReplicated, 61);
  ExpectShape(shapes.at("kv_up"), 4096, 512, 32768, Split::kColumn, 61);
  ExpectShape(shapes.at("attention_out"), 4096, 16384, 7168, Split::kRow, 61);
  ExpectShape(shapes.at("gate_up"), 4096, 7168, 36864, Split::kColumn, 3);
  ExpectShape(shapes.at("router"), 4096, 7168, 256, Split::kReplicated, 58);
  ExpectShape(shapes.at("expert_gate_up"), 128, 7168, 4096, Split::kColumn,
              14848);
  ExpectShape(shapes.at("shared_down"), 4096, 2048, 7168, Split::kRow, 58);
}

TEST(LinearShapes, ExpertsRoundTheirShareUp) {
  EXPECT_EQ(ByName("mixtral-8x7b", 5, 1).at("expert_down").tokens,
            2);  // 10 assignments over 8 experts
  EXPECT_EQ(ByName("mixtral-8x7b", 5, 1).count("down"), 0u);
}

// Every weight matrix but the embedding is one of the shapes.
TEST(LinearShapes, HoldAllWeights) {
  for (const std::string& name : ModelNames()) {
    const ModelConfig config = *FindModel(name);
    int64_t weights = 0;
    const std::vector<LinearShape> shapes = *LinearShapes(config, 128, 1);
    for (const LinearShape& shape : shapes)
      weights += shape.in * shape.out * shape.times;
    int64_t expected =
        config.tied_embeddings ? config.vocabulary * config.hidden : 0;
    for (const Parameter& parameter : Parameters(config)) {
      const bool matrix = parameter.name.ends_with(".weight") &&
                          parameter.name.find("norm") == std::string::npos;
      if (matrix) expected += parameter.count;
    }
    EXPECT_EQ(weights, expected) << name;
  }
}

// layers.md and arXiv:2205.05198, appendix A: 24 s b h^2 (1 + s/6h) per block, and 2 s b h v for the logits.
TEST(ForwardFlops, OfADenseGeluBlock) {
  const double s = 1024, b = 3, h = 768, v = 50257;
  const double expected =
      12 * 24 * s * b * h * h * (1 + s / (6 * h)) + 2 * s * b * h * v;
  EXPECT_DOUBLE_EQ(*ForwardFlops(*FindModel("gpt2"), 1024, 3), expected);
}

TEST(LinearShapes, RefusesImpossibleTokens) {
  const ModelConfig config = *FindModel("gpt2");
  for (const auto& [sequence, batch] : {std::pair<int64_t, int64_t>{0, 1},
                                        {1, 0},
                                        {-5, 1},
                                        {INT64_MAX, INT64_MAX}}) {
    const StatusOr<std::vector<LinearShape>> shapes =
        LinearShapes(config, sequence, batch);
    ASSERT_FALSE(shapes.ok());
    EXPECT_THAT(shapes.status().message(), HasSubstr("sequence"));
  }
  EXPECT_FALSE(LinearShapes(ModelConfig{}, 1, 1).ok());
}

}  // namespace
}  // namespace shardproof::models
