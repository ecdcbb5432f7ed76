#include "layers/models/catalog.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "layers/models/parameters.h"

namespace shardproof::models {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

struct Published {
  const char* name;
  int64_t parameters;
  int64_t active;
};

class PublishedCount : public testing::TestWithParam<Published> {};

// The totals of the model cards and of the released weight files. DeepSeek-V3: the main model of 671 B, without its
// multi-token prediction module; 37 B active. Mixtral: 46.7 B, 12.9 B active.
INSTANTIATE_TEST_SUITE_P(
    Models, PublishedCount,
    testing::Values(Published{"gpt2", 124'439'808, 124'439'808},
                    Published{"llama-3.1-8b", 8'030'261'248, 8'030'261'248},
                    Published{"llama-3.1-70b", 70'553'706'496, 70'553'706'496},
                    Published{"llama-3.1-405b", 405'853'388'800,
                              405'853'388'800},
                    Published{"mixtral-8x7b", 46'702'792'704, 12'879'925'248},
                    Published{"deepseek-v3", 671'026'419'200, 37'552'297'472}));

TEST_P(PublishedCount, IsReproduced) {
  const StatusOr<ModelConfig> config = FindModel(GetParam().name);
  ASSERT_TRUE(config.ok()) << config.status().ToString();
  EXPECT_EQ(config->name, GetParam().name);
  EXPECT_EQ(ParameterCount(*config), GetParam().parameters);
  EXPECT_EQ(ActiveParameterCount(*config), GetParam().active);
}

TEST(Catalog, ListsItsModels) {
  EXPECT_THAT(ModelNames(),
              ElementsAre("deepseek-v3", "gpt2", "llama-3.1-405b",
                          "llama-3.1-70b", "llama-3.1-8b", "mixtral-8x7b"));
}

TEST(Catalog, FindsByNameOrPath) {
  EXPECT_EQ(FindModel("Llama-3.1-8B")->hidden, 4096);
  EXPECT_EQ(FindOrLoadModel("gpt2")->layers, 12);
  EXPECT_THAT(
      FindModel("llama-4").status().message(),
      AllOf(HasSubstr("\"llama-4\""), HasSubstr("gpt2, llama-3.1-405b")));
  EXPECT_THAT(FindOrLoadModel("no/such.json").status().message(),
              AllOf(HasSubstr("\"no/such.json\" is neither a file nor"),
                    HasSubstr("mixtral-8x7b")));
}

TEST(Parameters, ShardsOfAllRanksAreTheWhole) {
  for (const char* name : {"llama-3.1-8b", "mixtral-8x7b", "deepseek-v3"}) {
    const ModelConfig config = *FindModel(name);
    const int64_t tp = 4, ep = config.is_moe() ? 2 : 1;
    const std::vector<Parameter> whole = Parameters(config),
                                 local = Parameters(config, tp, ep);
    ASSERT_EQ(whole.size(), local.size());
    for (size_t i = 0; i < whole.size(); ++i) {
      EXPECT_EQ(whole[i].name, local[i].name);
      const bool replicated =
          whole[i].tensor_sum != TensorSum::kNever || !whole[i].trained;
      const int64_t shards = (replicated ? 1 : tp) * (whole[i].expert ? ep : 1);
      EXPECT_EQ(local[i].count * shards, whole[i].count)
          << name << " " << whole[i].name;
    }
  }
}

TEST(Parameters, PadsTheVocabularyAndReplicatesKvHeads) {
  const ModelConfig gpt2 = *FindModel("gpt2");
  EXPECT_EQ(LocalVocabulary(gpt2, 4), 12565);  // 4 x 12565 = 50260
  EXPECT_EQ(Parameters(gpt2, 4)[0].count, 12565 * 768);
  const ModelConfig llama = *FindModel("llama-3.1-8b");
  EXPECT_EQ(LocalKvHeads(llama, 8), 1);
  EXPECT_EQ(LocalKvHeads(llama, 32), 1);
  const std::vector<Parameter> local = Parameters(llama, 32);
  EXPECT_EQ(local[2].name, "layers.0.attention.qkv.weight");
  EXPECT_EQ(local[2].count, 4096 * (1 + 2) * 128);
}

}  // namespace
}  // namespace shardproof::models
