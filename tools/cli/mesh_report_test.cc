// What is said of meshes: the order that is compared, what is left open, and the
// step that flags describe.
#include "tools/cli/mesh_report.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <string>

#include "pipeline/train_step/mesh_cost.h"
#include "tools/cli/pipeline_mesh.h"
#include "tools/cli/table.h"

namespace shardproof {
namespace {

TrainStepConfig ConfigOf(const std::string& mesh, const std::string& model) {
  PipelineMeshOptions options;
  options.mesh = mesh;
  options.model = model;
  return *StepOf(options);
}

std::string RefusalOf(const PipelineMeshOptions& options) {
  const auto config = StepOf(options);
  return config.ok() ? "" : std::string(config.status().message());
}

std::string BetweenNodes(const TrainStepConfig& config, int ranks_per_node) {
  return BytesText(BytesBetweenNodes(*PredictMeshCost(config), ranks_per_node));
}

TEST(MeshReport, NodesWhereNobodySaysHowManyRanks) {
  EXPECT_EQ(NodeOf(1), 1);
  EXPECT_EQ(NodeOf(3), 1);
  EXPECT_EQ(NodeOf(8), 4);
  EXPECT_EQ(NodeOf(16), 8);
  EXPECT_EQ(NodeOf(1024), 8);
}

TEST(MeshReport, ComparesWithTheUsualOrder) {
  const TrainStepConfig other = ConfigOf("pp=2,tp=4", "llama");
  const TrainStepConfig usual = ConfigOf("tp=4,pp=2", "llama");
  const std::string sends = BetweenNodes(other, 4);
  const std::string instead = BetweenNodes(usual, 4);
  ASSERT_NE(sends, instead);
  const std::string sentence = *OrderSentence(other, 4);
  EXPECT_TRUE(sentence.starts_with(
      fmt::format("pp=2,tp=4 sends {} between nodes of 4 ranks; tp=4,pp=2, in "
                  "the usual order, sends {} (",
                  sends, instead)))
      << sentence;
  EXPECT_EQ(*OrderSentence(usual, 4),
            fmt::format("tp=4,pp=2 sends {} between nodes of 4 ranks, in the "
                        "usual order: tp, cp, ep, pp, dp",
                        instead));
}

TEST(MeshReport, HasALineForEachDimension) {
  const TrainStepConfig config = ConfigOf("dp=2,pp=2,tp=2", "gpt");
  const std::string report = *MeshReport(config, 2);
  const auto cost = PredictMeshCost(config);
  ASSERT_EQ(cost->dimensions.size(), 4U);
  for (const DimensionCost& row : cost->dimensions) {
    const size_t at = report.find(fmt::format("\n{} ", row.name));
    ASSERT_NE(at, std::string::npos) << row.name << " in\n" << report;
    const std::string line =
        report.substr(at + 1, report.find('\n', at + 1) - at);
    for (const std::string& part : {BytesText(static_cast<double>(row.bytes)),
                                    fmt::format("  {}  ", row.messages),
                                    BytesText(BytesBetweenNodes(row, 2))}) {
      EXPECT_NE(line.find(part), std::string::npos) << part << " in " << line;
    }
  }
  EXPECT_NE(report.find(*OrderSentence(config, 2)), std::string::npos);
}

TEST(MeshReport, SaysWhenItDependsOnTheRouting) {
  const auto mentions = [](const char* mesh) {
    return MeshReport(ConfigOf(mesh, "mixtral"), 2)->find("routing") !=
           std::string::npos;
  };
  EXPECT_TRUE(mentions("tp=2,ep=2"));
  EXPECT_FALSE(mentions("tp=2,dp=2"));
}

TEST(MeshReport, StepsAsFlagsSay) {
  PipelineMeshOptions options;
  options.mesh = "tp=8,pp=4,dp=2";
  options.zero = 1;
  options.recompute = "full";
  const auto config = StepOf(options);
  ASSERT_TRUE(config.ok()) << config.status().message();
  EXPECT_EQ(config->model.hidden, 4096);
  EXPECT_EQ(config->model.kv_heads, 8);
  EXPECT_EQ(config->model.intermediate, 14336);
  EXPECT_EQ(config->model.blocks, 32);
  EXPECT_EQ(config->model.length, 4096);
  EXPECT_EQ(config->micro_batches, 8);
  EXPECT_EQ(config->sequences, 16);
  EXPECT_EQ(config->zero_stage, 1);
  EXPECT_EQ(config->recompute, Recomputation::kFull);
  options.micro_batch = 3;
  options.micro_batches = 5;
  options.sequence = 64;
  EXPECT_EQ(StepOf(options)->sequences, 30);
  EXPECT_EQ(StepOf(options)->model.length, 64);
  options.model = "gpt2";
  options.sequence = 0;
  EXPECT_EQ(StepOf(options)->model.length, 1024);
  EXPECT_TRUE(StepOf(options)->model.learned_positions);
}

TEST(MeshReport, Refusals) {
  PipelineMeshOptions options;
  options.mesh = "tp=65536,pp=65536,dp=2147483647";
  EXPECT_NE(RefusalOf(options).find("more than 4096 ranks"), std::string::npos);
  options.mesh = "tp=2";
  EXPECT_EQ(RefusalOf(options), "");
  options.model = "deepseek-v3";
  EXPECT_NE(RefusalOf(options).find("no latent attention"), std::string::npos);
  options.mesh = "qp=2";
  EXPECT_NE(RefusalOf(options).find("no dimension \"qp\""), std::string::npos);
}

}  // namespace
}  // namespace shardproof
