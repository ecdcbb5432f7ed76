#include "layers/models/message_sizes.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <string>
#include <vector>

#include "layers/models/catalog.h"
#include "layers/models/parameters.h"

namespace shardproof::models {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

// s = 16, b = 3, h = 8, f = 12, a = 4, 2 KV heads of width 2, v = 10, 2 layers.
ModelConfig Toy() {
  return {.name = "toy",
          .family = Family::kLlama,
          .hidden = 8,
          .intermediate = 12,
          .layers = 2,
          .heads = 4,
          .kv_heads = 2,
          .head_dim = 2,
          .v_head_dim = 2,
          .vocabulary = 10,
          .rope_theta = 1e4};
}

// 4 experts of width 6, 2 per token, in every layer.
ModelConfig ToyMoe() {
  ModelConfig config = Toy();
  config.family = Family::kMixtral;
  config.experts = 4;
  config.experts_per_token = 2;
  config.moe_intermediate = 6;
  return config;
}

constexpr int64_t kS = 16, kB = 3, kH = 8, kSbh = kS * kB * kH;
constexpr int64_t kE = 2;  // bf16
constexpr int64_t kQkv = kH * (8 + 4 + 4), kOut = kH * 8, kGateUp = kH * 24,
                  kDown = 12 * kH;

Parallelism Layout() { return {.sequence = kS, .micro_batch = kB}; }

std::vector<Message> Messages(const ModelConfig& config, const Parallelism& p) {
  StatusOr<std::vector<Message>> messages = TrainingStepMessages(config, p);
  EXPECT_TRUE(messages.ok()) << messages.status().ToString();
  return messages.ok() ? *std::move(messages) : std::vector<Message>();
}

// The messages of `group` whose text holds `word`.
std::vector<Message> Select(const std::vector<Message>& messages, Group group,
                            std::string_view word = "") {
  std::vector<Message> selected;
  std::copy_if(messages.begin(), messages.end(), std::back_inserter(selected),
               [&](const Message& m) {
                 return m.group == group &&
                        m.what.find(word) != std::string::npos;
               });
  return selected;
}

double Wire(const std::vector<Message>& messages, int64_t stage = 0) {
  return WireBytesPerStep(messages, stage);
}

// "count x times" of each, in order.
std::vector<std::string> Brief(const std::vector<Message>& messages) {
  std::vector<std::string> brief;
  brief.reserve(messages.size());
  for (const Message& m : messages) {
    brief.push_back(fmt::format("{} {} {} x{}", Name(m.primitive), m.count,
                                Name(m.dtype), m.times));
  }
  return brief;
}

TEST(WireBytes, FollowsTheVolumeOfEachPrimitive) {
  const Message m{
      .what = "", .group_size = 4, .count = 100, .dtype = DType::kF32};
  const auto of = [&](Primitive primitive) {
    Message copy = m;
    copy.primitive = primitive;
    return WireBytes(copy);
  };
  EXPECT_DOUBLE_EQ(of(Primitive::kAllReduce), 600);
  EXPECT_DOUBLE_EQ(of(Primitive::kAllGather), 300);
  EXPECT_DOUBLE_EQ(of(Primitive::kReduceScatter), 300);
  EXPECT_DOUBLE_EQ(of(Primitive::kAllToAll), 300);
  EXPECT_DOUBLE_EQ(of(Primitive::kSendRecv), 400);
}

TEST(TrainingStepMessages, OneRankSendsNothing) {
  EXPECT_THAT(Messages(Toy(), Layout()), IsEmpty());
  Parallelism p = Layout();
  p.sequence_parallel = true;
  p.zero_stage = 3;
  EXPECT_THAT(Messages(Toy(), p), IsEmpty());
}

TEST(TensorParallel, PlainMatchesTheCostTable) {
  Parallelism p = Layout();
  p.tp = 2;
  p.micro_batches = 5;
  const std::vector<Message> messages = Messages(Toy(), p);
  const double rho = 0.5;
  // A block: 4 rho sbh e forward, the same backward; attention and mlp are half of it each.
  for (const char* layer : {"the attention", "the mlp"}) {
    EXPECT_DOUBLE_EQ(Wire(Select(messages, Group::kTensor,
                                 std::string(layer) + " output, forward")),
                     2 * 5 * 2 * rho * kSbh * kE);
    EXPECT_DOUBLE_EQ(
        Wire(Select(messages, Group::kTensor,
                    std::string(layer) + " input gradient, backward")),
        2 * 5 * 2 * rho * kSbh * kE);
  }
  EXPECT_DOUBLE_EQ(Wire(Select(messages, Group::kTensor, "word embedding")),
                   5 * 2 * rho * kSbh * kE);
  EXPECT_DOUBLE_EQ(Wire(Select(messages, Group::kTensor, "output projection")),
                   5 * 2 * rho * kSbh * kE);
  EXPECT_THAT(Brief(Select(messages, Group::kTensor, "cross entropy")),
              ElementsAre("all_reduce 48 f32 x15"));
  EXPECT_THAT(Brief(Select(messages, Group::kTensor, "replicated weights")),
              IsEmpty());
  EXPECT_THAT(Brief(Select(messages, Group::kModel)),
              ElementsAre("all_reduce 1 f32 x1"));
  EXPECT_EQ(messages.size(), 4 + 1 + 1 + 1 + 1u);
}

TEST(TensorParallel, SequenceParallelMatchesTheCostTable) {
  Parallelism p = Layout();
  p.tp = 4;
  p.sequence_parallel = true;
  const std::vector<Message> messages = Messages(Toy(), p);
  const double rho = 0.75;
  for (const char* layer : {"the attention ", "the mlp "}) {
    const std::vector<Message> of_layer =
        Select(messages, Group::kTensor, layer);
    EXPECT_THAT(
        Brief(of_layer),
        ElementsAre("all_gather 384 bf16 x2", "reduce_scatter 384 bf16 x2",
                    "all_gather 384 bf16 x2", "reduce_scatter 384 bf16 x2",
                    "all_gather 384 bf16 x2"));
    // Column: rho sbh e forward, 2 rho sbh e backward. Row: rho sbh e each.
    EXPECT_DOUBLE_EQ(Wire(Select(of_layer, Group::kTensor, "forward")),
                     2 * 2 * rho * kSbh * kE);
    EXPECT_DOUBLE_EQ(Wire(Select(of_layer, Group::kTensor, "backward")),
                     2 * 3 * rho * kSbh * kE);
  }
  EXPECT_THAT(
      Brief(Select(messages, Group::kTensor, "word embedding")),
      ElementsAre("reduce_scatter 384 bf16 x1", "all_gather 384 bf16 x1"));
  // Two norms a block and the last one, h each.
  EXPECT_THAT(Brief(Select(messages, Group::kTensor, "replicated weights")),
              ElementsAre("all_reduce 40 f32 x1"));
  // Two KV heads on four ranks: h (d_k + d_v) per layer, between pairs.
  const std::vector<Message> kv = Select(messages, Group::kTensorKv);
  EXPECT_THAT(Brief(kv), ElementsAre("all_reduce 32 f32 x2"));
  EXPECT_EQ(kv[0].group_size, 2);
}

TEST(TensorParallel, LatentAttentionExchangesTheLatents) {
  Parallelism p{.tp = 8, .sequence = 4096};
  const std::vector<Message> plain = Messages(*FindModel("deepseek-v3"), p);
  EXPECT_THAT(Brief(Select(plain, Group::kTensor, "up-projection")),
              ElementsAre("all_reduce 6291456 bf16 x61",
                          "all_reduce 2359296 bf16 x61"));
  EXPECT_THAT(Brief(Select(plain, Group::kTensor, "replicated weights")),
              ElementsAre("all_reduce 106430464 f32 x1"))
      << "the routers of 58 layers";
  EXPECT_THAT(Brief(Select(plain, Group::kTensor, "the mlp output")),
              ElementsAre("all_reduce 29360128 bf16 x3"));
  EXPECT_THAT(Brief(Select(plain, Group::kTensor, "the experts output")),
              ElementsAre("all_reduce 29360128 bf16 x58"));
  p.sequence_parallel = true;
  const std::vector<Message> sharded = Messages(*FindModel("deepseek-v3"), p);
  EXPECT_THAT(Brief(Select(sharded, Group::kTensor, "query up-projection")),
              ElementsAre("all_gather 6291456 bf16 x61",
                          "reduce_scatter 6291456 bf16 x61",
                          "all_gather 6291456 bf16 x61"));
}

TEST(ContextParallel, RingMatchesTheCostTable) {
  Parallelism p = Layout();
  p.cp = 4;
  p.micro_batches = 5;
  const std::vector<Message> context =
      Select(Messages(Toy(), p), Group::kContext);
  // 16/4 tokens x 3 x 2 KV heads x (2 + 2); 3 hops, and 4 for the gradients; 2 layers, 5 micro-batches.
  EXPECT_THAT(Brief(context),
              ElementsAre("send_recv 96 bf16 x30", "send_recv 96 bf16 x30",
                          "send_recv 96 f32 x40"));
  // 2 S Hkv d (P-1)/P e, per layer and micro-batch.
  EXPECT_DOUBLE_EQ(Wire(Select(context, Group::kContext, "forward")),
                   2 * 5 * (2.0 * kS * kB * 2 * 2 * 3 / 4 * kE));
}

TEST(ContextParallel, AllGatherSendsAsMuchAsTheRing) {
  Parallelism p = Layout();
  p.cp = 4;
  p.context_scheme = ContextScheme::kAllGatherKv;
  const std::vector<Message> context =
      Select(Messages(Toy(), p), Group::kContext);
  EXPECT_THAT(Brief(context),
              ElementsAre("all_gather 384 bf16 x2", "all_gather 384 bf16 x2",
                          "reduce_scatter 384 f32 x2"));
  EXPECT_DOUBLE_EQ(Wire(Select(context, Group::kContext, "forward")),
                   2 * (2.0 * kS * kB * 2 * 2 * 3 / 4 * kE));
}

TEST(ContextParallel, UlyssesMatchesTheCostTable) {
  Parallelism p = Layout();
  p.cp = 2;
  p.context_scheme = ContextScheme::kUlysses;
  const std::vector<Message> context =
      Select(Messages(Toy(), p), Group::kContext);
  EXPECT_EQ(context.size(), 8u);
  // (P-1)/P (S/P) d (2 Hq + 2 Hkv) e, per layer.
  EXPECT_DOUBLE_EQ(Wire(Select(context, Group::kContext, "forward")),
                   2 * (0.5 * kS / 2 * kB * 2 * (2 * 4 + 2 * 2) * kE));
  EXPECT_DOUBLE_EQ(Wire(Select(context, Group::kContext, "backward")),
                   Wire(Select(context, Group::kContext, "forward")));
}

TEST(Pipeline, SendsActivationsBetweenNeighbours) {
  ModelConfig config = Toy();
  config.layers = 7;
  Parallelism p = Layout();
  p.pp = 4;
  p.micro_batches = 5;
  EXPECT_EQ(StageLayers(config, p, 0), (std::pair<int64_t, int64_t>(0, 2)));
  EXPECT_EQ(StageLayers(config, p, 2), (std::pair<int64_t, int64_t>(4, 6)));
  EXPECT_EQ(StageLayers(config, p, 3), (std::pair<int64_t, int64_t>(6, 7)));
  const std::vector<Message> pipeline =
      Select(Messages(config, p), Group::kPipeline);
  ASSERT_THAT(Brief(pipeline),
              ElementsAre("send_recv 384 bf16 x5", "send_recv 384 bf16 x5"));
  EXPECT_EQ(pipeline[0].first_stage, 0);  // Forward: all but the last stage.
  EXPECT_EQ(pipeline[0].last_stage, 2);
  EXPECT_EQ(pipeline[1].first_stage, 1);  // Backward: all but the first.
  EXPECT_EQ(pipeline[1].last_stage, 3);
  p.tp = 2;
  p.sequence_parallel = true;
  EXPECT_EQ(Select(Messages(config, p), Group::kPipeline)[0].count, kSbh / 2);
}

TEST(Pipeline, TheEndsOfTheModelAreSentByTheirStages) {
  ModelConfig config = Toy();
  config.tied_embeddings = true;
  Parallelism p = Layout();
  p.tp = 2;
  p.pp = 2;
  const std::vector<Message> messages = Messages(config, p);
  EXPECT_EQ(Select(messages, Group::kTensor, "word embedding")[0].last_stage,
            0);
  EXPECT_EQ(Select(messages, Group::kTensor, "cross entropy")[0].first_stage,
            1);
  const std::vector<Message> tied = Select(messages, Group::kEmbedding);
  EXPECT_THAT(Brief(tied), ElementsAre("all_reduce 40 f32 x1"));  // v/t h
  config.tied_embeddings = false;
  EXPECT_THAT(Select(Messages(config, p), Group::kEmbedding), IsEmpty());
}

TEST(Pipeline, OnlyAdjacentStagesShareAnEntry) {
  ModelConfig config = Toy();
  config.layers = 3;
  config.tied_embeddings = true;
  Parallelism p = Layout();
  p.pp = 3;
  const std::vector<Message> tied =
      Select(Messages(config, p), Group::kEmbedding);
  ASSERT_EQ(tied.size(), 2u);
  EXPECT_EQ(tied[0].last_stage, 0);
  EXPECT_EQ(tied[1].first_stage, 2);
  EXPECT_EQ(Wire(tied, 1), 0);
}

TEST(DataParallel, BucketsAreWholeTensorsInBackwardOrder) {
  Parallelism p = Layout();
  p.dp = 2;
  p.bucket_bytes = 400;  // 100 elements
  // Backward: head 80 + norm 8 + down 96 | gate_up 192 | norm 8 + out 64 + qkv 128 | norm 8 + down 96 | gate_up 192 |
  // norm 8 + out 64 + qkv 128 | norm 8 + embedding 80.
  EXPECT_THAT(Brief(Select(Messages(Toy(), p), Group::kData)),
              ElementsAre("all_reduce 184 f32 x1", "all_reduce 192 f32 x2",
                          "all_reduce 200 f32 x2", "all_reduce 104 f32 x1",
                          "all_reduce 88 f32 x1"));
}

TEST(DataParallel, ABucketThatIsExactlyFullIsClosed) {
  Parallelism p = Layout();
  p.dp = 2;
  p.bucket_bytes = int64_t{4} * (80 + 8 + 96);
  EXPECT_EQ(Select(Messages(Toy(), p), Group::kData)[0].count, 184);
}

TEST(DataParallel, EveryTrainedParameterIsReducedOnce) {
  const auto reduced = [](const ModelConfig& config) {
    int64_t count = 0;
    for (const Message& m : Messages(config, {.dp = 2, .sequence = 64})) {
      if (m.group == Group::kData || m.group == Group::kExpertData) {
        count += m.count * m.times;
      }
    }
    return count;
  };
  for (const std::string& name : ModelNames()) {
    const ModelConfig config = *FindModel(name);
    const int64_t untrained =
        config.router_bias ? config.experts * (config.layers - 3) : 0;
    EXPECT_EQ(reduced(config), ParameterCount(config) - untrained) << name;
  }
}

TEST(DataParallel, VolumeMatchesTheCostTableAtEveryZeroStage) {
  const double psi = static_cast<double>(ParameterCount(Toy()));
  EXPECT_EQ(psi, 2 * 80 + 8 + 2 * (16 + kQkv + kOut + kGateUp + kDown));
  for (const int zero : {0, 1, 2, 3}) {
    Parallelism p = Layout();
    p.dp = 4;
    p.zero_stage = zero;
    p.grad_dtype = DType::kBF16;
    const double wire = Wire(Select(Messages(Toy(), p), Group::kData));
    // 2(d-1)/d Psi e, and a gather more for ZeRO-3.
    EXPECT_DOUBLE_EQ(wire, (zero == 3 ? 3 : 2) * 0.75 * psi * kE)
        << "ZeRO " << zero;
    p.micro_batches = 5;
    const double accumulated = Wire(Select(Messages(Toy(), p), Group::kData));
    EXPECT_DOUBLE_EQ(accumulated, wire * (zero == 3   ? 5
                                          : zero == 2 ? 3
                                                      : 1))
        << "ZeRO " << zero;
  }
}

TEST(DataParallel, ZeroThreeWorksLayerByLayerAndPads) {
  Parallelism p = Layout();
  p.dp = 7;
  p.zero_stage = 3;
  // 80 -> 84; 496 -> 497 twice; 88 -> 91.
  EXPECT_THAT(Brief(Select(Messages(Toy(), p), Group::kData, "forward")),
              ElementsAre("all_gather 84 bf16 x1", "all_gather 497 bf16 x2",
                          "all_gather 91 bf16 x1"));
}

TEST(DataParallel, ContextRanksHoldTheSameParameters) {
  Parallelism p = Layout();
  p.dp = 2;
  p.cp = 2;
  EXPECT_EQ(Select(Messages(Toy(), p), Group::kData)[0].group_size, 4);
}

TEST(ExpertParallel, MatchesTheCostTable) {
  Parallelism p = Layout();
  p.dp = 4;
  p.ep = 2;
  p.bucket_bytes = 1 << 20;
  const std::vector<Message> messages = Messages(ToyMoe(), p);
  const std::vector<Message> expert = Select(messages, Group::kExpert);
  EXPECT_EQ(expert.size(), 4u);
  // 2 k T h e (E-1)/E per layer and pass.
  EXPECT_DOUBLE_EQ(Wire(Select(expert, Group::kExpert, "forward")),
                   2 * (kSbh * 2 * 2 * kE * 0.5));
  EXPECT_DOUBLE_EQ(Wire(Select(expert, Group::kExpert, "backward")),
                   2 * (kSbh * 2 * 2 * kE * 0.5));
  // Half of the 4 experts of 3 x 6 x 8, in 2 layers, held by dp / ep ranks; the dense rest by all of dp.
  const std::vector<Message> experts = Select(messages, Group::kExpertData);
  EXPECT_THAT(Brief(experts), ElementsAre("all_reduce 576 f32 x1"));
  EXPECT_EQ(experts[0].group_size, 2);
  const std::vector<Message> dense = Select(messages, Group::kData);
  EXPECT_EQ(dense[0].count, 168 + 2 * (16 + kQkv + kOut + 32));
  EXPECT_EQ(dense[0].group_size, 4);
}

TEST(ExpertParallel, SequenceParallelDispatchesOwnTokens) {
  Parallelism p = Layout();
  p.tp = 2;
  p.dp = 2;
  p.ep = 2;
  p.sequence_parallel = true;
  const std::vector<Message> messages = Messages(ToyMoe(), p);
  for (const Message& m : Select(messages, Group::kExpert))
    EXPECT_EQ(m.count, 2 * kSbh / 2);
  EXPECT_THAT(Brief(Select(messages, Group::kTensor, "dispatched tokens ")),
              ElementsAre("all_gather 768 bf16 x2"));
  EXPECT_THAT(Select(messages, Group::kTensor, "shared"), IsEmpty());
}

TEST(Optimizer, TheNormSpansTheRanksThatHoldDifferentGradients) {
  const auto size = [](const Parallelism& p) {
    return Select(Messages(ToyMoe(), p), Group::kModel)[0].group_size;
  };
  Parallelism p = Layout();
  p.tp = 2;
  p.cp = 2;
  p.pp = 2;
  p.dp = 4;
  EXPECT_EQ(size(p), 4);  // tp x pp
  p.ep = 2;
  EXPECT_EQ(size(p), 8);  // and the shards of the experts
  p.zero_stage = 1;
  EXPECT_EQ(size(p), 32);
}

TEST(DistinctSizes, AreSortedAndUnique) {
  Parallelism p = Layout();
  p.tp = 2;
  const std::vector<MessageSize> sizes = DistinctSizes(Messages(Toy(), p));
  EXPECT_THAT(
      sizes,
      ElementsAre(MessageSize{Primitive::kAllReduce, 1, DType::kF32, 2},
                  MessageSize{Primitive::kAllReduce, 48, DType::kF32, 2},
                  MessageSize{Primitive::kAllReduce, 384, DType::kBF16, 2}));
  EXPECT_THAT(DistinctSizes({}), IsEmpty());
}

TEST(TrainingStepMessages, OfTheLargestModelOnManyRanks) {
  // The layout of arXiv:2407.21783, table 4, third row: 16384 GPUs.
  const Parallelism p{.tp = 8,
                      .cp = 16,
                      .pp = 16,
                      .dp = 8,
                      .sequence = 131072,
                      .micro_batches = 16,
                      .sequence_parallel = true,
                      .zero_stage = 1};
  const std::vector<Message> messages =
      Messages(*FindModel("llama-3.1-405b"), p);
  EXPECT_EQ(p.ranks(), 16384);
  for (const Message& m : messages) {
    EXPECT_GE(m.group_size, 2) << m.what;
    EXPECT_GT(m.count, 0) << m.what;
    EXPECT_GT(m.times, 0) << m.what;
    EXPECT_LE(m.first_stage, m.last_stage);
    EXPECT_LT(m.last_stage, 16);
    EXPECT_THAT(m.what, HasSubstr(std::string(Name(m.primitive))));
  }
  EXPECT_LT(DistinctSizes(messages).size(), 60u);
}

}  // namespace
}  // namespace shardproof::models
