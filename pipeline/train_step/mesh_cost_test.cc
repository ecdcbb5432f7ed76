#include "pipeline/train_step/mesh_cost.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "collectives/backend/thread/thread_world.h"
#include "reference/tensor.h"

namespace shardproof {
namespace {

TrainStepConfig ConfigOf(const std::string& mesh) {
  TrainStepConfig config;
  LanguageModelConfig& m = config.model;
  m.blocks = 4;
  m.vocabulary = 29;
  m.length = 8;
  m.hidden = 8;
  m.heads = 8;
  m.kv_heads = 4;
  m.head_dim = 2;
  m.intermediate = 11;
  m.norm = NormKind::kRmsNorm;
  m.activation = Activation::kSwiGlu;
  m.rope_theta = 10000;
  m.optimizer.max_norm = 0.5;
  config.mesh = *ParseTrainMesh(mesh);
  config.micro_batches = 4;
  config.sequences = 19;
  return config;
}

TrainStepConfig GptOf(const std::string& mesh) {
  TrainStepConfig config = ConfigOf(mesh);
  LanguageModelConfig& m = config.model;
  m.kv_heads = 8;
  m.norm = NormKind::kLayerNorm;
  m.activation = Activation::kGeluTanh;
  m.rope_theta = 0;
  m.bias = m.tied = m.learned_positions = true;
  return config;
}

TrainStepConfig MixtralOf(const std::string& mesh) {
  TrainStepConfig config = ConfigOf(mesh);
  config.model.experts = 4;
  config.model.top_k = 2;
  return config;
}

// What all ranks send in one step.
StatusOr<Traffic> Counted(const TrainStepConfig& config,
                          const CollectiveFamily& family) {
  const auto ranks = static_cast<size_t>(config.mesh.ranks());
  std::vector<Traffic> of_rank(ranks);
  SP_RETURN_IF_ERROR(
      RunThreads(config.mesh.ranks(), [&](const Communicator& world) -> Status {
        SP_ASSIGN_OR_RETURN(TrainStep step,
                            TrainStep::Create(world, config, family));
        Tensor weights = Tensor::Zeros(config.model.dtype,
                                       {LanguageModelSize(config.model)});
        SP_RETURN_IF_ERROR(step.Load(weights.raw()));
        std::vector<int64_t> ids(
            static_cast<size_t>(config.sequences * config.model.length));
        for (size_t i = 0; i < ids.size(); ++i) {
          ids[i] = static_cast<int64_t>(i) % config.model.vocabulary;
        }
        const Traffic before = world.traffic();
        SP_RETURN_IF_ERROR(step.Step(ids, ids));
        of_rank[static_cast<size_t>(world.rank())] = world.traffic() - before;
        return OkStatus();
      }));
  Traffic sum;
  for (const Traffic& t : of_rank) sum += t;
  return sum;
}

std::string Text(const Traffic& t) {
  return fmt::format("{} bytes in {}", t.bytes, t.messages);
}

void ExpectCounted(const TrainStepConfig& config, const std::string& what) {
  for (const CollectiveFamily* family :
       {&kRingCollectives, &kDirectCollectives}) {
    SCOPED_TRACE(fmt::format("{} {}", what, family->name));
    const auto cost = PredictMeshCost(config, *family);
    ASSERT_TRUE(cost.ok()) << cost.status().message();
    const auto counted = Counted(config, *family);
    ASSERT_TRUE(counted.ok()) << counted.status().message();
    std::string rows;
    Traffic sum;
    for (const DimensionCost& row : cost->dimensions) {
      rows += fmt::format("{}: {} in {}; ", row.name, row.bytes, row.messages);
      sum += {row.bytes, row.messages};
    }
    EXPECT_EQ(Text(cost->total), Text(*counted)) << rows;
    EXPECT_EQ(Text(sum), Text(cost->total));
  }
}

// One dimension at a time: what is counted is that row, and that of all.
TEST(MeshCost, EachDimensionIsWhatIsCounted) {
  for (const char* mesh :
       {"tp=1", "tp=2", "tp=3", "cp=2", "pp=2", "pp=4", "dp=2", "dp=3"}) {
    for (const bool sequence_parallel : {false, true}) {
      TrainStepConfig config = ConfigOf(mesh);
      config.sequence_parallel = sequence_parallel;
      if (config.mesh.tp() == 1 && sequence_parallel) continue;
      ExpectCounted(config,
                    fmt::format("llama {} {}", mesh, sequence_parallel));
      TrainStepConfig gpt = GptOf(mesh);
      gpt.sequence_parallel = sequence_parallel;
      ExpectCounted(gpt, fmt::format("gpt {} {}", mesh, sequence_parallel));
    }
  }
}

TEST(MeshCost, EveryStageOfZero) {
  for (int stage = 0; stage <= 3; ++stage) {
    for (const char* schedule : {"one_f_one_b", "zb_h1", "chimera"}) {
      TrainStepConfig config = GptOf("dp=2,pp=2");
      config.zero_stage = stage;
      config.schedule = schedule;
      config.overlap = stage % 2 == 1;
      ExpectCounted(config, fmt::format("ZeRO {} {}", stage, schedule));
    }
  }
}

TEST(MeshCost, SeveralDimensionsAtOnce) {
  for (const char* mesh : {"tp=2,pp=2,dp=2", "pp=2,tp=4", "tp=2,cp=2,pp=2"}) {
    TrainStepConfig config = ConfigOf(mesh);
    config.zero_stage = 2;
    config.recompute = Recomputation::kFull;
    config.sequence_parallel = true;
    ExpectCounted(config, mesh);
  }
}

TEST(MeshCost, MixturesWithoutExpertsElsewhereAreExact) {
  for (const char* mesh : {"tp=2,dp=2", "cp=2,pp=2"}) {
    TrainStepConfig config = MixtralOf(mesh);
    config.zero_stage = 1;
    config.sequence_parallel = config.mesh.tp() > 1;
    ExpectCounted(config, mesh);
    EXPECT_TRUE(PredictMeshCost(config)->exact);
  }
  EXPECT_FALSE(PredictMeshCost(MixtralOf("ep=2"))->exact);
}

// Nodes of 4: with tp innermost only messages of stages leave a node; with pp
// innermost none of them does, and two of the four edges of a ring of tp do.
TEST(MeshCost, OrderOfDimensions) {
  const auto usual = PredictMeshCost(ConfigOf("tp=4,pp=2"));
  const auto other = PredictMeshCost(ConfigOf("pp=2,tp=4"));
  ASSERT_TRUE(usual.ok() && other.ok());
  EXPECT_EQ(Text(usual->total), Text(other->total));
  const auto row = [](const MeshCost& cost, const std::string& name) {
    for (const DimensionCost& d : cost.dimensions) {
      if (d.name == name) return d;
    }
    return DimensionCost{};
  };
  const DimensionCost tp = row(*usual, "tp"), pp = row(*usual, "pp");
  EXPECT_EQ(tp.stride, 1);
  EXPECT_EQ(pp.stride, 4);
  EXPECT_EQ(row(*other, "tp").stride, 2);
  // 19 sequences of 8 tokens of 8 numbers, there and back, on 4 ranks of tp.
  EXPECT_EQ(pp.bytes, int64_t{19} * 8 * 8 * 4 * 2 * 4);
  EXPECT_EQ(BytesBetweenNodes(tp, 4), 0);
  EXPECT_EQ(BytesBetweenNodes(pp, 4), static_cast<double>(pp.bytes));
  EXPECT_EQ(BytesBetweenNodes(row(*other, "tp"), 4),
            static_cast<double>(tp.bytes) / 2);
  EXPECT_EQ(BytesBetweenNodes(row(*other, "pp"), 4), 0);
  EXPECT_GT(BytesBetweenNodes(*other, 4), BytesBetweenNodes(*usual, 4));
  EXPECT_EQ(BytesBetweenNodes(*usual, 8), 0);
  EXPECT_EQ(BytesBetweenNodes(*usual, 1),
            static_cast<double>(usual->total.bytes));
}

TEST(MeshCost, Refusals) {
  EXPECT_FALSE(PredictMeshCost(ConfigOf("tp=2"), kAutoCollectives).ok());
  EXPECT_FALSE(PredictMeshCost(ConfigOf("tp=16")).ok());
}

}  // namespace
}  // namespace shardproof
