#include "pipeline/train_step/model_shards.h"

#include <gtest/gtest.h>

#include <map>
#include <string>
#include <vector>

#include "pipeline/train_step/train_mesh.h"

namespace shardproof {
namespace {

LanguageModelConfig Model(int64_t kv_heads, int64_t experts) {
  LanguageModelConfig m;
  m.blocks = 2;
  m.vocabulary = 13;
  m.length = 8;
  m.hidden = 6;
  m.heads = 8;
  m.kv_heads = kv_heads;
  m.head_dim = 2;
  m.intermediate = 5;
  m.activation = Activation::kSwiGlu;
  m.bias = experts == 0;
  m.learned_positions = true;
  m.experts = experts;
  m.top_k = 1;
  return m;
}

// Every element of the model is somewhere, and counts exactly once.
TEST(ModelShards, CoverTheModelAndCountItOnce) {
  for (const int64_t kv_heads : {1, 2, 4, 8}) {
    for (const int64_t experts : {0, 3}) {
      const LanguageModelConfig model = Model(kv_heads, experts);
      for (int tp = 1; tp <= 8; ++tp) {
        for (int ep = 1; ep <= (experts > 0 ? 3 : 1); ++ep) {
          std::vector<int> held(static_cast<size_t>(LanguageModelSize(model)));
          std::vector<int> counted = held;
          for (int rank = 0; rank < tp * ep; ++rank) {
            const ShardPlace place = {
                .tp = tp, .tp_rank = rank % tp, .ep = ep, .ep_rank = rank / tp};
            for (const ModelBlock& block : ModelBlocks(model, place)) {
              // Dense blocks are replicas along ep.
              if (!block.experts && place.ep_rank > 0) continue;
              const std::vector<int64_t> places = block.Places();
              int64_t runs = 0;
              for (const CountedRun& run : block.counted) {
                EXPECT_EQ(run.begin, runs);
                runs += run.count;
                for (int64_t i = run.begin; i < runs; ++i) {
                  const int64_t at = places[static_cast<size_t>(i)];
                  if (at < 0) continue;
                  ++held[static_cast<size_t>(at)];
                  counted[static_cast<size_t>(at)] += run.counted ? 1 : 0;
                }
              }
              EXPECT_EQ(runs, block.count) << block.name;
            }
          }
          for (size_t i = 0; i < held.size(); ++i) {
            ASSERT_GE(held[i], 1) << "element " << i << ", tp " << tp;
            ASSERT_EQ(counted[i], 1) << "element " << i << ", tp " << tp;
          }
        }
      }
    }
  }
}

TEST(ModelShards, HaveTheSizesOfTheLayers) {
  const std::vector<ModelBlock> blocks =
      ModelBlocks(Model(2, 0), {.tp = 4, .tp_rank = 3});
  std::map<std::string, Shape> shapes;
  for (const ModelBlock& block : blocks) {
    for (const ParameterShard& p : block.parameters) shapes[p.name] = p.shape;
  }
  EXPECT_EQ(shapes["table"], Shape({4, 6}));  // Of 13 rows, with padding.
  EXPECT_EQ(shapes["w_qkv"], Shape({8, 6}));  // 2 heads, 1 key, 1 value.
  EXPECT_EQ(shapes["w_out"], Shape({6, 4}));
  EXPECT_EQ(shapes["w_up"], Shape({1, 6}));
  EXPECT_EQ(shapes["w_down"], Shape({6, 1}));
  EXPECT_EQ(shapes["b_down"], Shape({6}));
  EXPECT_EQ(shapes["positions"], Shape({8, 6}));
}

TEST(TrainMesh, ReadsWhatItWrites) {
  for (const std::string text :
       {"tp=2,pp=4", "pp=4,tp=2", "tp=1", "dp=3", "tp=2,cp=2,ep=2,pp=2,dp=2"}) {
    const auto mesh = ParseTrainMesh(text);
    ASSERT_TRUE(mesh.ok()) << mesh.status().ToString();
    EXPECT_EQ(Describe(*mesh), text);
  }
  EXPECT_TRUE(ParseTrainMesh("tp=2,pp=4")->InUsualOrder());
  EXPECT_FALSE(ParseTrainMesh("pp=4,tp=2")->InUsualOrder());
  EXPECT_EQ(ParseTrainMesh("pp=4,tp=2")->ranks(), 8);
}

TEST(TrainMesh, RefusesWhatIsNone) {
  for (const std::string text : {"", "tp", "tp=0", "tp=2,tp=2", "xp=2", "tp=2,",
                                 "tp=-1", "tp=2x", "pp=2,ep=65536,dp=65536"}) {
    EXPECT_EQ(ParseTrainMesh(text).status().code(),
              StatusCode::kInvalidArgument)
        << text;
  }
}

TEST(TrainMesh, KnowsAllFactorisations) {
  EXPECT_EQ(Factorisations(8).size(), 20U);  // Of 2^3 into 4 factors.
  EXPECT_EQ(Factorisations(8, {"tp", "cp", "ep", "pp", "dp"}).size(), 35U);
  EXPECT_EQ(Factorisations(1).size(), 1U);
  EXPECT_EQ(Factorisations(6).size(), 16U);
  for (const TrainMesh& mesh : Factorisations(8)) EXPECT_EQ(mesh.ranks(), 8);
}

}  // namespace
}  // namespace shardproof
