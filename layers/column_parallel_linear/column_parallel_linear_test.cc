// What the case cannot say: refusals, and layers with nothing in them.
#include "layers/column_parallel_linear/column_parallel_linear.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <string>
#include <vector>

#include "collectives/backend/thread/thread_world.h"

namespace shardproof {
namespace {

using Floats = std::vector<float>;

// The error of making the layer that `config` gives each rank; all ranks must
// have the same.
Status Refusal(int ranks,
               const std::function<ParallelLinearConfig(int rank)>& config) {
  std::vector<std::string> texts(static_cast<size_t>(ranks));
  std::vector<Status> refusals(static_cast<size_t>(ranks));
  const Status ran = RunThreads(ranks, [&](const Communicator& comm) {
    const auto r = static_cast<size_t>(comm.rank());
    refusals[r] =
        ColumnParallelLinear::Create(comm, config(comm.rank())).status();
    texts[r] = refusals[r].ToString();
    return OkStatus();
  });
  EXPECT_TRUE(ran.ok()) << ran.ToString();
  for (const std::string& text : texts) EXPECT_EQ(text, texts[0]);
  return std::move(refusals[0]);
}

TEST(ColumnParallelLinear, RefusesOnEveryRankAlike) {
  const Status negative = Refusal(3, [](int) {
    return ParallelLinearConfig{.tokens = 4, .in = -1, .out = 6};
  });
  EXPECT_EQ(negative.code(), StatusCode::kInvalidArgument);
  EXPECT_NE(negative.message().find("4 tokens, -1 to 6, f32: a size is"),
            std::string_view::npos)
      << negative.message();
  const Status integers = Refusal(2, [](int) {
    return ParallelLinearConfig{
        .tokens = 4, .in = 5, .out = 6, .dtype = DType::kI32};
  });
  EXPECT_EQ(integers.code(), StatusCode::kUnsupported);
  const Status differ = Refusal(3, [](int rank) {
    return ParallelLinearConfig{.tokens = 4, .in = 5, .out = 6 + rank / 2};
  });
  EXPECT_EQ(differ.code(), StatusCode::kInvalidArgument);
  EXPECT_NE(differ.message().find("ranks 0 and 2 make different layers"),
            std::string_view::npos)
      << differ.message();
}

// Rank 0 has no room for its part, rank 1 none for what is gathered.
TEST(ColumnParallelLinear, RefusesOnEveryRankAlikeWhatIsTooLarge) {
  for (const bool sequence_parallel : {false, true}) {
    const Status refusal = Refusal(2, [&](int) {
      return ParallelLinearConfig{.tokens = int64_t{1} << 50,
                                  .in = sequence_parallel ? 1 : 0,
                                  .out = sequence_parallel ? 0 : 1,
                                  .sequence_parallel = sequence_parallel,
                                  .gather_output = !sequence_parallel};
    });
    EXPECT_EQ(refusal.code(), StatusCode::kOutOfMemory);
    EXPECT_EQ(refusal.message().substr(0, 8), "rank 0: ");
  }
}

struct Result {
  Floats y, dx, dw, db;
};

// Both passes with x = 2, w = 3, b = 5 and dy = 7 everywhere.
void RunLayer(int ranks, const ParallelLinearConfig& config,
              const std::function<void(const ColumnParallelLinear&,
                                       const Result&)>& look) {
  const Status ran = RunThreads(ranks, [&](const Communicator& comm) -> Status {
    SP_ASSIGN_OR_RETURN(const ColumnParallelLinear layer,
                        ColumnParallelLinear::Create(comm, config));
    const auto x_size = static_cast<size_t>(layer.local_tokens() * config.in);
    const auto w_size = static_cast<size_t>(layer.local_out() * config.in);
    const auto y_size = static_cast<size_t>(
        config.tokens *
        (config.gather_output ? config.out : layer.local_out()));
    const auto b_size = static_cast<size_t>(layer.local_out());
    const Floats x(x_size, 2), w(w_size, 3), b(b_size, 5), dy(y_size, 7);
    Result out{Floats(y_size, -1), Floats(x_size, -1), Floats(w_size, -1),
               Floats(b_size, -1)};
    SP_RETURN_IF_ERROR(
        layer.Forward({x.data(), w.data(), b.data(), out.y.data()}));
    SP_RETURN_IF_ERROR(
        layer.Backward({x.data(), w.data(), dy.data(), out.dx.data(),
                        out.dw.data(), out.db.data()}));
    look(layer, out);
    return OkStatus();
  });
  EXPECT_TRUE(ran.ok()) << ran.ToString();
}

TEST(ColumnParallelLinear, WithoutTokensHasZeroGradients) {
  for (const bool sequence_parallel : {false, true}) {
    RunLayer(3,
             {.tokens = 0,
              .in = 4,
              .out = 5,
              .bias = true,
              .sequence_parallel = sequence_parallel},
             [](const ColumnParallelLinear& layer, const Result& out) {
               EXPECT_EQ(out.dw, Floats(out.dw.size(), 0));
               EXPECT_EQ(out.db,
                         Floats(static_cast<size_t>(layer.local_out()), 0));
             });
  }
}

TEST(ColumnParallelLinear, WithoutOutputsHasZeroInputGradients) {
  for (const bool sequence_parallel : {false, true}) {
    RunLayer(3,
             {.tokens = 7,
              .in = 4,
              .out = 0,
              .bias = true,
              .sequence_parallel = sequence_parallel},
             [](const ColumnParallelLinear& layer, const Result& out) {
               EXPECT_EQ(
                   out.dx,
                   Floats(static_cast<size_t>(layer.local_tokens()) * 4, 0));
             });
  }
}

TEST(ColumnParallelLinear, WithoutInputsIsItsBias) {
  RunLayer(
      2, {.tokens = 3, .in = 0, .out = 5, .bias = true},
      [](const ColumnParallelLinear& layer, const Result& out) {
        EXPECT_EQ(out.y, Floats(static_cast<size_t>(layer.local_out()) * 3, 5));
        EXPECT_EQ(out.db, Floats(static_cast<size_t>(layer.local_out()), 21));
      });
}

TEST(ColumnParallelLinear, MoreRanksThanOutputs) {
  RunLayer(
      4,
      {.tokens = 2, .in = 3, .out = 2, .bias = true, .sequence_parallel = true},
      [](const ColumnParallelLinear& layer, const Result& out) {
        EXPECT_EQ(out.y, Floats(out.y.size(), 2 * 3 * 3 + 5));
        EXPECT_EQ(out.dx, Floats(out.dx.size(), 2 * 7 * 3));
        EXPECT_EQ(out.dw, Floats(out.dw.size(), 2 * 7 * 2));
        EXPECT_LE(layer.local_out(), 1);
      });
}

TEST(ColumnParallelLinear, GathersOutputsOfMoreRanksThanThereAre) {
  for (const int ranks : {1, 4}) {
    RunLayer(
        ranks,
        {.tokens = 2, .in = 3, .out = 2, .bias = true, .gather_output = true},
        [](const ColumnParallelLinear&, const Result& out) {
          EXPECT_EQ(out.y, Floats(2 * 2, 2 * 3 * 3 + 5));
          EXPECT_EQ(out.dx, Floats(2 * 3, 2 * 7 * 3));
          EXPECT_EQ(out.dw, Floats(out.dw.size(), 2 * 7 * 2));
          EXPECT_EQ(out.db, Floats(out.db.size(), 2 * 7));
        });
  }
}

TEST(ColumnParallelLinear, DoesNotGatherOutputsOfOwnTokens) {
  EXPECT_EQ(Refusal(2,
                    [](int) {
                      return ParallelLinearConfig{.tokens = 4,
                                                  .in = 5,
                                                  .out = 6,
                                                  .sequence_parallel = true,
                                                  .gather_output = true};
                    })
                .code(),
            StatusCode::kUnsupported);
}

// rho s b f e more: each rank's part of y goes to all others.
TEST(ColumnParallelLinear, GatheringCostsOneOutput) {
  ParallelLinearConfig config = {.tokens = 6, .in = 4, .out = 10};
  const Cost without =
      ColumnParallelLinearForwardCost(4, config, kRingCollectives);
  config.gather_output = true;
  const Cost with =
      ColumnParallelLinearForwardCost(4, config, kRingCollectives);
  EXPECT_EQ(with.total.bytes - without.total.bytes, (4 - 1) * 6 * 10 * 4);
}

}  // namespace
}  // namespace shardproof
