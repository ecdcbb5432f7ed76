#include "layers/models/parallelism.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <functional>

#include "layers/models/catalog.h"
#include "layers/models/message_sizes.h"

namespace shardproof::models {
namespace {

struct Refusal {
  const char* name;
  const char* model;
  std::function<void(Parallelism&)> change;
  const char* message;
};

class Refused : public testing::TestWithParam<Refusal> {};

TEST_P(Refused, WithOneSentence) {
  const ModelConfig config = *FindModel(GetParam().model);
  Parallelism p{.sequence = 1024};
  ASSERT_TRUE(Validate(config, p).ok());
  GetParam().change(p);
  const StatusOr<std::vector<Message>> messages =
      TrainingStepMessages(config, p);
  ASSERT_FALSE(messages.ok());
  EXPECT_EQ(messages.status().code(), StatusCode::kInvalidArgument);
  EXPECT_THAT(messages.status().message(),
              testing::HasSubstr(GetParam().message));
}

using P = Parallelism;
INSTANTIATE_TEST_SUITE_P(
    Layouts, Refused,
    testing::Values(
        Refusal{"NoTp", "gpt2", [](P& p) { p.tp = 0; },
                "tp is 0; set it to a whole number from 1"},
        Refusal{"NegativeDp", "gpt2", [](P& p) { p.dp = -2; }, "dp is -2"},
        Refusal{"HugePp", "gpt2", [](P& p) { p.pp = INT64_MAX; },
                "pp is 9223372036854775807"},
        Refusal{"NoSequence", "gpt2", [](P& p) { p.sequence = 0; },
                "sequence is 0"},
        Refusal{"NoMicroBatches", "gpt2", [](P& p) { p.micro_batches = 0; },
                "micro_batches is 0"},
        Refusal{"NoBucket", "gpt2", [](P& p) { p.bucket_bytes = 0; },
                "bucket_bytes is 0"},
        Refusal{"ZeroStage", "gpt2", [](P& p) { p.zero_stage = 4; },
                "ZeRO stage is 4"},
        Refusal{"IntegerGradients", "gpt2",
                [](P& p) { p.grad_dtype = DType::kI32; }, "i32 gradients"},
        Refusal{"TooManyRanks", "gpt2", [](P& p) { p.dp = p.cp = 1 << 20; },
                "use at most"},
        Refusal{"TpAboveHeads", "gpt2", [](P& p) { p.tp = 24; },
                "tp (24) is larger than the 12 attention heads of gpt2"},
        Refusal{"TpNoDivisor", "gpt2", [](P& p) { p.tp = 5; },
                "tp (5) does not divide the attention heads (12)"},
        Refusal{"TpPastKvHeads", "llama-3.1-405b", [](P& p) { p.tp = 256; },
                "larger than the 128 attention heads"},
        Refusal{"PpAboveLayers", "gpt2", [](P& p) { p.pp = 13; },
                "pp (13) is larger than the 12 layers"},
        Refusal{"LearnedPositions", "gpt2", [](P& p) { p.sequence = 2048; },
                "longer than the 1024 learned positions"},
        Refusal{"CpNoDivisor", "gpt2", [](P& p) { p.cp = 3; },
                "cp (3) does not divide the sequence (1024)"},
        Refusal{"SequenceParallel", "gpt2",
                [](P& p) { p.tp = 3, p.sequence_parallel = true; },
                "multiple of tp x cp"},
        Refusal{"Ulysses", "llama-3.1-8b",
                [](P& p) {
                  p.tp = 4, p.cp = 4,
                  p.context_scheme = ContextScheme::kUlysses;
                },
                "(8 query, 2 KV) by cp (4)"},
        Refusal{"EpOfDense", "gpt2", [](P& p) { p.dp = p.ep = 2; },
                "gpt2 has no experts"},
        Refusal{"EpNoDivisor", "mixtral-8x7b", [](P& p) { p.dp = p.ep = 3; },
                "ep (3) does not divide the 8 experts"},
        Refusal{"EpOutsideDp", "mixtral-8x7b", [](P& p) { p.dp = 2, p.ep = 4; },
                "ep (4) does not divide dp (2)"},
        Refusal{
            "TooManyTokens", "llama-3.1-8b",
            [](P& p) { p.sequence = int64_t{1} << 31, p.micro_batch = 1024; },
            "beyond the limit of 64-bit sizes"}),
    [](const testing::TestParamInfo<Refusal>& info) {
      return info.param.name;
    });

TEST(Validate, RefusesWidthsThatTpDoesNotDivide) {
  ModelConfig config = *FindModel("mixtral-8x7b");
  config.moe_intermediate = 14335;
  EXPECT_THAT(Validate(config, Parallelism{.tp = 2}).message(),
              testing::HasSubstr("does not divide the expert width"));
  config = *FindModel("llama-3.1-8b");
  config.intermediate = 14335;
  EXPECT_THAT(Validate(config, Parallelism{.tp = 2}).message(),
              testing::HasSubstr("the feed-forward width (14335)"));
  config = *FindModel("llama-3.1-8b");
  config.heads = 48;
  config.kv_heads = 12;
  EXPECT_THAT(Validate(config, Parallelism{.tp = 8}).message(),
              testing::HasSubstr("12 KV heads"));
}

TEST(Validate, RefusesMessagesBeyond64Bits) {
  ModelConfig config = *FindModel("mixtral-8x7b");
  config.hidden = int64_t{1} << 22;
  config.experts_per_token = 8;
  EXPECT_TRUE(Validate(config, Parallelism{.sequence = int64_t{1} << 31}).ok());
  EXPECT_THAT(
      Validate(config, Parallelism{.sequence = int64_t{1} << 32}).message(),
      testing::HasSubstr("beyond the limit of 64-bit sizes"));
}

TEST(Validate, AcceptsTheLargestSizesWithoutOverflow) {
  const ModelConfig config = *FindModel("deepseek-v3");
  const Parallelism p{.tp = 2,
                      .cp = 2,
                      .pp = 61,
                      .dp = 2,
                      .ep = 2,
                      .sequence = int64_t{1} << 32,
                      .micro_batches = 1 << 20,
                      .dtype = DType::kF64,
                      .grad_dtype = DType::kF64};
  const StatusOr<std::vector<Message>> messages =
      TrainingStepMessages(config, p);
  ASSERT_TRUE(messages.ok()) << messages.status().ToString();
  for (const Message& message : *messages)
    EXPECT_GT(message.bytes(), 0) << message.what;
}

}  // namespace
}  // namespace shardproof::models
