// What the case cannot say: refusals, empty parts, streams, and that nothing is
// asked for in the steady state.
#include "layers/optimizer/optimizer.h"

#include <gtest/gtest.h>

#include <array>
#include <cmath>
#include <functional>
#include <limits>
#include <vector>

#include "collectives/backend/thread/thread_world.h"
#include "layers/testing/allocations.h"

namespace shardproof {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();

void OnRanks(int ranks, const std::function<Status(const Communicator&)>& f) {
  const Status ran = RunThreads(ranks, f);
  EXPECT_TRUE(ran.ok()) << ran.ToString();
}

// The error of every rank, where rank 2 asks for something else.
std::vector<Status> Refusals(const ParallelOptimizerConfig& usual,
                             const ParallelOptimizerConfig& of_rank_2,
                             int64_t count_of_rank_2 = 1) {
  std::vector<Status> refusals(3);
  OnRanks(3, [&](const Communicator& comm) {
    const bool odd = comm.rank() == 2;
    refusals[static_cast<size_t>(comm.rank())] =
        ParallelOptimizer::Create(comm, odd ? of_rank_2 : usual,
                                  {{.count = odd ? count_of_rank_2 : 1}})
            .status();
    return OkStatus();
  });
  return refusals;
}

void ExpectAlike(const std::vector<Status>& refusals, StatusCode code,
                 std::string_view part) {
  for (const Status& refusal : refusals) {
    EXPECT_EQ(refusal.code(), code) << refusal.ToString();
    EXPECT_EQ(refusal.message(), refusals[0].message());
    EXPECT_NE(refusal.message().find(part), std::string_view::npos)
        << refusal.ToString();
  }
}

TEST(ParallelOptimizer, RefusesOnEveryRankAlike) {
  const ParallelOptimizerConfig usual;
  ParallelOptimizerConfig other;
  other.settings.max_norm = 2;
  ExpectAlike(Refusals(usual, other), StatusCode::kInvalidArgument,
              "ranks 0 and 2 make different layers");
  ExpectAlike(Refusals(usual, usual, -1), StatusCode::kInvalidArgument,
              "rank 2: a tensor of -1 elements");
}

TEST(ParallelOptimizer, RefusesWhatHasNoMeaning) {
  const auto refusal = [](const std::function<void(OptimizerSettings&)>& set) {
    ParallelOptimizerConfig config;
    set(config.settings);
    return Refusals(config, config);
  };
  const auto expect = [&](const std::function<void(OptimizerSettings&)>& set,
                          std::string_view part) {
    ExpectAlike(refusal(set), StatusCode::kInvalidArgument, part);
  };
  expect([](auto& s) { s.learning_rate = -1; }, "a negative rate");
  expect([](auto& s) { s.learning_rate = std::nan(""); }, "a negative rate");
  expect([](auto& s) { s.beta2 = 1; }, "not in [0, 1)");
  expect([](auto& s) { s.momentum = -0.1; }, "not in [0, 1)");
  expect([](auto& s) { s.weight_decay = -0.1; }, "a negative decay");
  expect([](auto& s) { s.epsilon = -1; }, "a negative epsilon");
  expect([](auto& s) { s.max_norm = 0; }, "the largest norm");
  expect([](auto& s) { s.loss_scaling = LossScaling{.backoff = 1}; },
         "the loss scale");
  ParallelOptimizerConfig integers = {.dtype = DType::kI32};
  ExpectAlike(Refusals(integers, integers), StatusCode::kUnsupported, "i32");
  ParallelOptimizerConfig mixed = {.dtype = DType::kF32,
                                   .gradient_dtype = DType::kBF16};
  ExpectAlike(Refusals(mixed, mixed), StatusCode::kUnsupported,
              "gradients are f32");
}

// Rank r of 3 has r elements, 1 + 2 + 2 = 5 squares; the replicated element 2.
TEST(ParallelOptimizer, EmptyPartsAndReplicasCountOnce) {
  OnRanks(3, [](const Communicator& comm) -> Status {
    const int64_t own = comm.rank();
    SP_ASSIGN_OR_RETURN(
        ParallelOptimizer optimizer,
        ParallelOptimizer::Create(
            comm,
            {.settings = {.rule = OptimizerRule::kSgd,
                          .learning_rate = 1,
                          .max_norm = kInfinity}},
            {{.count = own}, {.count = 1, .counted = comm.rank() == 1}}));
    std::vector<float> w(2, 10), g(2, static_cast<float>(own));
    float shared = 10, g_shared = 2;
    const std::array<OptimizerMemory, 2> memory = {
        {{w.data(), g.data()}, {&shared, &g_shared}}};
    SP_RETURN_IF_ERROR(optimizer.Step(memory));
    EXPECT_EQ(optimizer.report().norm, std::sqrt(1 + 2 * 4 + 4));
    EXPECT_EQ(shared, 8);
    EXPECT_EQ(w[0], own > 0 ? 10 - own : 10);
    EXPECT_EQ(w[1], own > 1 ? 8 : 10);
    return OkStatus();
  });
}

TEST(ParallelOptimizer, OneOverflowSkipsOnEveryRank) {
  OnRanks(4, [](const Communicator& comm) -> Status {
    SP_ASSIGN_OR_RETURN(
        ParallelOptimizer optimizer,
        ParallelOptimizer::Create(
            comm,
            {.settings = {.rule = OptimizerRule::kAdam,
                          .loss_scaling = LossScaling{.initial = 64}},
             .dtype = DType::kF16,
             .gradient_dtype = DType::kF16},
            // Not even a duplicate's overflow is overlooked.
            {{.count = 1, .counted = false}}));
    Float16 w(1.0F), g(comm.rank() == 2 ? 1e9F : 1.0F);
    const void* const parameter = &w;
    SP_RETURN_IF_ERROR(optimizer.Load({&parameter, 1}));
    const OptimizerMemory memory = {&w, &g};
    SP_RETURN_IF_ERROR(optimizer.Step({&memory, 1}));
    EXPECT_TRUE(optimizer.report().skipped);
    EXPECT_EQ(optimizer.report().loss_scale, 64);
    EXPECT_EQ(optimizer.loss_scale(), 32);
    EXPECT_EQ(optimizer.steps(), 0);
    EXPECT_EQ(static_cast<float>(w), 1);
    EXPECT_EQ(*static_cast<const float*>(optimizer.second(0)), 0);
    g = Float16(1.0F);
    SP_RETURN_IF_ERROR(optimizer.Step({&memory, 1}));
    EXPECT_EQ(optimizer.steps(), 1);
    EXPECT_NE(*static_cast<const float*>(optimizer.second(0)), 0);
    return OkStatus();
  });
}

TEST(ParallelOptimizer, KeepsWhatItsHeaderSays) {
  OnRanks(1, [](const Communicator& comm) -> Status {
    const auto bytes = [&](DType dtype, OptimizerRule rule) {
      const auto made = ParallelOptimizer::Create(
          comm,
          {.settings = {.rule = rule}, .dtype = dtype, .gradient_dtype = dtype},
          {{.count = 100}, {.count = 3}});
      EXPECT_TRUE(made.ok()) << made.status().ToString();
      return made.ok() ? made->state_bytes() : -1;
    };
    EXPECT_EQ(bytes(DType::kBF16, OptimizerRule::kAdamW), 12 * 103);
    EXPECT_EQ(bytes(DType::kF32, OptimizerRule::kAdam), 8 * 103);
    EXPECT_EQ(bytes(DType::kF16, OptimizerRule::kSgd), 4 * 103);
    EXPECT_EQ(bytes(DType::kF64, OptimizerRule::kSgd), 0);
    return OkStatus();
  });
}

TEST(ParallelOptimizer, RefusesTheWrongNumberOfTensors) {
  OnRanks(1, [](const Communicator& comm) -> Status {
    SP_ASSIGN_OR_RETURN(ParallelOptimizer optimizer,
                        ParallelOptimizer::Create(comm, {}, {{.count = 1}}));
    EXPECT_EQ(optimizer.Step({}).code(), StatusCode::kInvalidArgument);
    EXPECT_EQ(optimizer.Load({}).code(), StatusCode::kInvalidArgument);
    return OkStatus();
  });
}

// The same bits from a stream, and in order with what is queued before.
TEST(ParallelOptimizer, StepsOnAStream) {
  OnRanks(2, [](const Communicator& comm) -> Status {
    SP_ASSIGN_OR_RETURN(const Stream stream, Stream::Create("optimizer"));
    std::array<float, 2> results{};
    for (const bool queued : {false, true}) {
      SP_ASSIGN_OR_RETURN(
          ParallelOptimizer optimizer,
          ParallelOptimizer::Create(comm, {.settings = {.max_norm = 0.5}},
                                    {{.count = 1}}));
      float w = 3, g = 0;
      const OptimizerMemory memory = {&w, &g};
      const Stream& s = queued ? stream : Stream::Inline();
      for (int k = 1; k <= 3; ++k) {
        SP_RETURN_IF_ERROR(s.Run([&g, k, &comm] {
          g = static_cast<float>(k + comm.rank());
          return Status();
        }));
        SP_RETURN_IF_ERROR(optimizer.Step({&memory, 1}, 1, s));
      }
      SP_RETURN_IF_ERROR(s.Synchronize());
      EXPECT_EQ(optimizer.steps(), 3);
      results[queued ? 1 : 0] = w;
    }
    EXPECT_EQ(results[0], results[1]);
    EXPECT_NE(results[0], 3);
    return OkStatus();
  });
}

TEST(ParallelOptimizer, SteadyStateAsksForNoMemory) {
  OnRanks(2, [](const Communicator& comm) -> Status {
    SP_ASSIGN_OR_RETURN(
        ParallelOptimizer optimizer,
        ParallelOptimizer::Create(
            comm,
            {.settings = {.max_norm = 1.0, .loss_scaling = LossScaling{}},
             .dtype = DType::kBF16,
             .gradient_dtype = DType::kBF16},
            {{.count = 1000}}));
    std::vector<BFloat16> w(1000, BFloat16(1.0F)), g(1000, BFloat16(2.0F));
    const OptimizerMemory memory = {w.data(), g.data()};
    for (int i = 0; i < 2; ++i) {
      SP_RETURN_IF_ERROR(optimizer.Step({&memory, 1}));
    }
    SP_RETURN_IF_ERROR(comm.Barrier());
    const int64_t before = Allocations();
    SP_RETURN_IF_ERROR(comm.Barrier());
    for (int i = 0; i < 3; ++i) {
      SP_RETURN_IF_ERROR(optimizer.Step({&memory, 1}));
    }
    SP_RETURN_IF_ERROR(comm.Barrier());
    EXPECT_EQ(Allocations(), before);
    return comm.Barrier();
  });
}

}  // namespace
}  // namespace shardproof
