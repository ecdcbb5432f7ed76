// What the case cannot say: refusals, and layers with nothing in them.
#include "layers/row_parallel_linear/row_parallel_linear.h"

#include <gtest/gtest.h>

#include <functional>
#include <vector>

#include "collectives/backend/thread/thread_world.h"

namespace shardproof {
namespace {

using Floats = std::vector<float>;

struct Result {
  Floats y, dx, dw, db;
};

// Both passes with x = 2, w = 3, b = 5 and dy = 7 everywhere.
void RunLayer(int ranks, const ParallelLinearConfig& config,
              const std::function<void(const Result&)>& look) {
  const Status ran = RunThreads(ranks, [&](const Communicator& comm) -> Status {
    SP_ASSIGN_OR_RETURN(const RowParallelLinear layer,
                        RowParallelLinear::Create(comm, config));
    const auto x_size = static_cast<size_t>(
        config.tokens *
        (config.input_is_parallel ? layer.local_in() : config.in));
    const auto w_size = static_cast<size_t>(config.out * layer.local_in());
    const auto y_size = static_cast<size_t>(layer.local_tokens() * config.out);
    const auto b_size = static_cast<size_t>(config.out);
    const Floats x(x_size, 2), w(w_size, 3), b(b_size, 5), dy(y_size, 7);
    Result out{Floats(y_size, -1), Floats(x_size, -1), Floats(w_size, -1),
               Floats(b_size, -1)};
    SP_RETURN_IF_ERROR(
        layer.Forward({x.data(), w.data(), b.data(), out.y.data()}));
    SP_RETURN_IF_ERROR(
        layer.Backward({x.data(), w.data(), dy.data(), out.dx.data(),
                        out.dw.data(), out.db.data()}));
    look(out);
    return OkStatus();
  });
  EXPECT_TRUE(ran.ok()) << ran.ToString();
}

TEST(RowParallelLinear, RefusesOnEveryRankAlike) {
  std::vector<Status> refusals(3);
  const Status ran = RunThreads(3, [&](const Communicator& comm) {
    refusals[static_cast<size_t>(comm.rank())] =
        RowParallelLinear::Create(
            comm, {.tokens = 4, .in = 5, .out = 6, .bias = comm.rank() == 1})
            .status();
    return OkStatus();
  });
  ASSERT_TRUE(ran.ok()) << ran.ToString();
  for (const Status& refusal : refusals) {
    EXPECT_EQ(refusal.code(), StatusCode::kInvalidArgument);
    EXPECT_EQ(refusal.message(),
              "ranks 0 and 1 make different layers: \"row_parallel_linear of 4 "
              "tokens, 5 to 6, f32\" and \"row_parallel_linear of 4 tokens, 5 "
              "to 6, f32, bias\"");
  }
}

// Rank 0 has no room for its part, rank 1 none for what is gathered.
TEST(RowParallelLinear, RefusesOnEveryRankAlikeWhatIsTooLarge) {
  for (const bool sequence_parallel : {false, true}) {
    std::vector<Status> refusals(2);
    const Status ran = RunThreads(2, [&](const Communicator& comm) {
      refusals[static_cast<size_t>(comm.rank())] =
          RowParallelLinear::Create(comm,
                                    {.tokens = int64_t{1} << 50,
                                     .in = sequence_parallel ? 0 : 1,
                                     .out = sequence_parallel ? 1 : 0,
                                     .sequence_parallel = sequence_parallel,
                                     .input_is_parallel = sequence_parallel})
              .status();
      return OkStatus();
    });
    ASSERT_TRUE(ran.ok()) << ran.ToString();
    for (const Status& refusal : refusals) {
      EXPECT_EQ(refusal.code(), StatusCode::kOutOfMemory);
      EXPECT_EQ(refusal.message().substr(0, 8), "rank 0: ");
      EXPECT_EQ(refusal.ToString(), refusals[0].ToString());
    }
  }
}

TEST(RowParallelLinear, AddsTheBiasOnceWithoutInputs) {
  for (const bool sequence_parallel : {false, true}) {
    RunLayer(4,
             {.tokens = 3,
              .in = 0,
              .out = 5,
              .bias = true,
              .sequence_parallel = sequence_parallel},
             [](const Result& out) {
               EXPECT_EQ(out.y, Floats(out.y.size(), 5));
               EXPECT_EQ(out.db, Floats(5, 3 * 7));
             });
  }
}

TEST(RowParallelLinear, MoreRanksThanInputsAndTokens) {
  for (const bool sequence_parallel : {false, true}) {
    RunLayer(5,
             {.tokens = 2,
              .in = 3,
              .out = 4,
              .bias = true,
              .sequence_parallel = sequence_parallel},
             [](const Result& out) {
               EXPECT_EQ(out.y, Floats(out.y.size(), 3 * 2 * 3 + 5));
               EXPECT_EQ(out.dx, Floats(out.dx.size(), 4 * 7 * 3));
               EXPECT_EQ(out.dw, Floats(out.dw.size(), 2 * 7 * 2));
               EXPECT_EQ(out.db, Floats(4, 2 * 7));
             });
  }
}

TEST(RowParallelLinear, SplitsInputsOverMoreRanksThanThereAre) {
  for (const int ranks : {1, 5}) {
    RunLayer(ranks,
             {.tokens = 2,
              .in = 3,
              .out = 4,
              .bias = true,
              .input_is_parallel = false},
             [](const Result& out) {
               EXPECT_EQ(out.y, Floats(2 * 4, 3 * 2 * 3 + 5));
               EXPECT_EQ(out.dx, Floats(2 * 3, 4 * 7 * 3));
               EXPECT_EQ(out.dw, Floats(out.dw.size(), 2 * 7 * 2));
               EXPECT_EQ(out.db, Floats(4, 2 * 7));
             });
  }
}

TEST(RowParallelLinear, DoesNotSplitInputsOfOwnTokens) {
  const Status ran = RunThreads(2, [&](const Communicator& comm) {
    EXPECT_EQ(RowParallelLinear::Create(comm, {.tokens = 4,
                                               .in = 5,
                                               .out = 6,
                                               .sequence_parallel = true,
                                               .input_is_parallel = false})
                  .status()
                  .code(),
              StatusCode::kUnsupported);
    return OkStatus();
  });
  EXPECT_TRUE(ran.ok()) << ran.ToString();
}

TEST(RowParallelLinear, WithoutTokensHasZeroGradients) {
  RunLayer(2, {.tokens = 0, .in = 3, .out = 4, .bias = true},
           [](const Result& out) {
             EXPECT_EQ(out.dw, Floats(out.dw.size(), 0));
             EXPECT_EQ(out.db, Floats(4, 0));
           });
}

}  // namespace
}  // namespace shardproof
