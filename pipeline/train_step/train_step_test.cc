#include "pipeline/train_step/train_step.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <cstdint>
#include <string>
#include <vector>

#include "collectives/backend/thread/thread_world.h"
#include "pipeline/registry.h"

namespace shardproof {
namespace {

using ::testing::HasSubstr;

TrainMesh MeshOf(const std::string& text) { return *ParseTrainMesh(text); }

TrainStepConfig Llama(const std::string& mesh) {
  TrainStepConfig config;
  LanguageModelConfig& m = config.model;
  m.blocks = 8;
  m.vocabulary = 13;
  m.length = 8;
  m.hidden = 8;
  m.heads = 4;
  m.kv_heads = 2;
  m.head_dim = 2;
  m.intermediate = 5;
  m.norm = NormKind::kRmsNorm;
  m.activation = Activation::kSwiGlu;
  m.rope_theta = 10000;
  m.optimizer = {.rule = OptimizerRule::kAdamW,
                 .learning_rate = 1.0 / 64,
                 .weight_decay = 0.125,
                 .max_norm = 0.5};
  config.mesh = MeshOf(mesh);
  config.micro_batches = 8;
  config.sequences = 9;
  return config;
}
TrainStepConfig Gpt(const std::string& mesh) {
  TrainStepConfig config = Llama(mesh);
  LanguageModelConfig& m = config.model;
  m.kv_heads = m.heads;
  m.norm = NormKind::kLayerNorm;
  m.activation = Activation::kGeluTanh;
  m.rope_theta = 0;
  m.bias = m.tied = m.learned_positions = true;
  return config;
}
TrainStepConfig Mixtral(const std::string& mesh) {
  TrainStepConfig config = Llama(mesh);
  config.model.experts = 3;
  config.model.top_k = 2;
  return config;
}

struct Batch {
  std::vector<int64_t> ids, targets;
};
Batch BatchOf(const TrainStepConfig& config) {
  Batch batch;
  for (int64_t i = 0; i < config.sequences * config.model.length; ++i) {
    batch.ids.push_back(i * 7 % config.model.vocabulary);
    batch.targets.push_back(i % 5 == 0 ? kIgnoredTarget
                                       : i * i % config.model.vocabulary);
  }
  return batch;
}

std::vector<float> Initial(const LanguageModelConfig& model) {
  std::vector<float> w;
  for (int64_t i = 0; i < LanguageModelSize(model); ++i) {
    w.push_back(
        static_cast<float>(0.5 * std::sin(static_cast<double>(i * i % 1009))));
  }
  return w;
}

struct Trained {
  std::vector<double> losses, norms;
  std::vector<float> parameters;
};

Status TrainTwice(const Communicator& comm, const TrainStepConfig& config,
                  Trained& trained) {
  SP_ASSIGN_OR_RETURN(TrainStep step, TrainStep::Create(comm, config));
  const std::vector<float> initial = Initial(config.model);
  SP_RETURN_IF_ERROR(step.Load(initial.data()));
  const Batch batch = BatchOf(config);
  for (int k = 0; k < 2; ++k) {
    SP_RETURN_IF_ERROR(step.Step(batch.ids, batch.targets));
    trained.losses.push_back(step.loss());
    trained.norms.push_back(step.norm());
  }
  trained.parameters.resize(initial.size());
  return step.CollectParameters(trained.parameters.data());
}

// Of every rank.
std::vector<Trained> OnThreads(const TrainStepConfig& config) {
  const int ranks = config.mesh.ranks();
  std::vector<Trained> all(static_cast<size_t>(ranks));
  const Status ran = RunThreads(ranks, [&](const Communicator& comm) {
    return TrainTwice(comm, config, all[static_cast<size_t>(comm.rank())]);
  });
  EXPECT_TRUE(ran.ok()) << ran.ToString();
  return all;
}

// A pipeline changes no sum, since micro-batches are added in their order; but
// for that of the norm, without which this is.
TEST(TrainStep, IsToTheBitWhatOneDeviceDoesInAPipeline) {
  const auto unclipped = [](const std::string& mesh) {
    TrainStepConfig config = Llama(mesh);
    config.model.optimizer.max_norm.reset();
    return config;
  };
  const std::vector<Trained> alone = OnThreads(unclipped("pp=1"));
  for (const std::string schedule :
       {"breadth_first", "eager_1f1b", "gpipe", "interleaved", "naive",
        "one_f_one_b", "zb_auto", "zb_h1", "zb_h2", "zb_v"}) {
    SCOPED_TRACE(schedule);
    TrainStepConfig config = unclipped("pp=4");
    config.schedule = schedule;
    config.chunks = FindSchedule(schedule)->takes_chunks ? 2 : 1;
    for (const Trained& rank : OnThreads(config)) {
      EXPECT_EQ(rank.losses, alone[0].losses);
      EXPECT_EQ(rank.parameters, alone[0].parameters);
    }
  }
}

TEST(TrainStep, LearnsTheSameOnEveryRank) {
  std::vector<TrainStepConfig> configs = {
      Llama("tp=2,cp=2,pp=2"), Gpt("tp=2,pp=2,dp=2"), Gpt("cp=2,pp=4"),
      Mixtral("tp=2,ep=2,dp=2"), Mixtral("cp=2,ep=2,pp=2")};
  int turn = 0;
  for (TrainStepConfig& config : configs) {
    SCOPED_TRACE(Describe(config.mesh));
    config.micro_batches = 8 / config.mesh.data_ranks();
    config.zero_stage = turn++ % 4;
    config.overlap = config.sequence_parallel = config.mesh.tp() > 1;
    const std::vector<Trained> ranks = OnThreads(config);
    EXPECT_LT(ranks[0].losses[1], ranks[0].losses[0]);
    for (const Trained& rank : ranks) {
      EXPECT_EQ(rank.losses, ranks[0].losses);
      EXPECT_EQ(rank.norms, ranks[0].norms);
    }
  }
}

// --- Bad input ---------------------------------------------------------------

// The same refusal on every rank, of what odd ranks are given.
void ExpectRefused(int ranks, const TrainStepConfig& usual,
                   const TrainStepConfig& odd, const std::string& part) {
  std::vector<Status> all(static_cast<size_t>(ranks));
  const Status ran = RunThreads(ranks, [&](const Communicator& comm) {
    all[static_cast<size_t>(comm.rank())] =
        TrainStep::Create(comm, comm.rank() % 2 == 1 ? odd : usual).status();
    return OkStatus();
  });
  EXPECT_TRUE(ran.ok()) << ran.ToString();
  for (const Status& status : all) {
    EXPECT_EQ(status.code(), StatusCode::kInvalidArgument);
    EXPECT_THAT(status.ToString(), HasSubstr(part));
    EXPECT_EQ(status.ToString(), all[0].ToString());
  }
}

TEST(TrainStep, RefusesWhatDoesNotFit) {
  const auto refused = [](const TrainStepConfig& config,
                          const std::string& part) {
    ExpectRefused(4, config, config, part);
  };
  refused(Llama("tp=2,pp=4"), "is of 8 ranks, and there are 4");
  TrainStepConfig config = Llama("pp=4");
  config.model.blocks = 3;
  refused(config, "4 stages of a model of 3 blocks");
  config = Llama("tp=4");
  config.model.heads = config.model.kv_heads = 2;
  refused(config, "2 heads for 4 ranks along tp");
  config = Llama("dp=4");
  config.sequences = 31;
  refused(config, "31 sequences for 8 micro-batches on each of 4 ranks");
  refused(Mixtral("ep=4"), "9 sequences");
  config = Mixtral("ep=4");
  config.micro_batches = 1;
  refused(config, "3 experts for 4 ranks along ep");
  config = Llama("pp=4");
  config.schedule = "guesswork";
  refused(config, "guesswork");
  config = Llama("cp=4");
  config.model.length = 12;
  refused(config, "12");
  config = Llama("tp=4");
  config.zero_stage = 4;
  refused(config, "not 4");
  config = Llama("pp=4");
  config.model.vocabulary = 0;
  refused(config, "a vocabulary of 0");
}

TEST(TrainStep, RefusesRanksThatDiffer) {
  TrainStepConfig other = Llama("tp=2,pp=2");
  other.zero_stage = 1;
  ExpectRefused(4, Llama("tp=2,pp=2"), other, "ZeRO");
  other = Llama("tp=2,pp=2");
  other.model.rope_theta = 500;
  ExpectRefused(4, Llama("tp=2,pp=2"), other, "500");
}

TEST(TrainStep, RefusesABatchBeforeAnythingIsDone) {
  const TrainStepConfig config = Gpt("tp=2,pp=2");
  const Status ran = RunThreads(4, [&](const Communicator& comm) -> Status {
    SP_ASSIGN_OR_RETURN(TrainStep step, TrainStep::Create(comm, config));
    SP_RETURN_IF_ERROR(step.Load(Initial(config.model).data()));
    const Batch right = BatchOf(config);
    Batch wrong = right;
    wrong.ids[11] = 13;
    EXPECT_THAT(step.Step(wrong.ids, wrong.targets).ToString(),
                HasSubstr("id 13 at token 3 of sequence 1"));
    wrong = right;
    wrong.targets[0] = -1;
    EXPECT_THAT(step.Step(wrong.ids, wrong.targets).ToString(),
                HasSubstr("target -1 at token 0 of sequence 0"));
    wrong.targets.pop_back();
    EXPECT_THAT(step.Step(wrong.ids, wrong.targets).ToString(),
                HasSubstr("72 ids and 71 targets"));
    return step.Step(right.ids, right.targets);
  });
  EXPECT_TRUE(ran.ok()) << ran.ToString();
}

TEST(TrainStep, TakesABatchOfWhichNothingCounts) {
  const TrainStepConfig config = Llama("dp=2");
  const Status ran = RunThreads(2, [&](const Communicator& comm) -> Status {
    TrainStepConfig small = config;
    small.micro_batches = 4;
    SP_ASSIGN_OR_RETURN(TrainStep step, TrainStep::Create(comm, small));
    SP_RETURN_IF_ERROR(step.Load(Initial(small.model).data()));
    Batch batch = BatchOf(small);
    std::fill(batch.targets.begin(), batch.targets.end(), kIgnoredTarget);
    SP_RETURN_IF_ERROR(step.Step(batch.ids, batch.targets));
    EXPECT_EQ(step.loss(), 0);
    EXPECT_EQ(step.norm(), 0);
    return OkStatus();
  });
  EXPECT_TRUE(ran.ok()) << ran.ToString();
}

}  // namespace
}  // namespace shardproof
