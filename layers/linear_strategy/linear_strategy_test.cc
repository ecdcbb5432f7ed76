// What the case cannot say: refusals, the choice and its crossover, and layers
// with nothing in them.
#include "layers/linear_strategy/linear_strategy.h"

#include <gtest/gtest.h>

#include <string_view>
#include <vector>

#include "collectives/backend/thread/thread_world.h"

namespace shardproof {
namespace {

using Floats = std::vector<float>;
constexpr LinearStrategy kGather = LinearStrategy::kGather;
constexpr LinearStrategy kScatter = LinearStrategy::kScatter;

// What the ring's critical path takes, forward (and backward).
double Seconds(const StrategyLinearConfig& config, const LinearRates& rates) {
  Cost cost = StrategyLinearForwardCost(4, config, kRingCollectives);
  if (rates.training) {
    cost += StrategyLinearBackwardCost(4, config, kRingCollectives);
  }
  return rates.beta * cost.beta_bytes + rates.gamma * cost.gamma_bytes;
}

// The choice is the one that the costs of the collectives say, on both sides of
// the crossover.
TEST(LinearStrategy, ChoosesWhatCostsLess) {
  for (const LinearRates& rates :
       {LinearRates{}, LinearRates{.gamma = 0.5},
        LinearRates{.gamma = 0.5, .training = false},
        LinearRates{.beta = 2, .gamma = 2, .training = false}}) {
    const double crossover = LinearCrossover(rates);
    for (const int64_t in : {8, 16, 40, 44, 48, 56, 60, 64, 76, 80, 84, 800}) {
      StrategyLinearConfig config = {.tokens = 4, .in = in, .out = 40};
      const double ratio = static_cast<double>(in) / 40;
      const double gather = Seconds(config, rates);
      config.strategy = kScatter;
      const double scatter = Seconds(config, rates);
      const LinearStrategy chosen = ChooseLinearStrategy(in, 40, rates);
      EXPECT_EQ(chosen, ratio <= crossover ? kGather : kScatter);
      EXPECT_LE(chosen == kGather ? gather : scatter,
                chosen == kGather ? scatter : gather)
          << in << " inputs";
    }
  }
  EXPECT_EQ(LinearCrossover({}), 1);
  EXPECT_EQ(LinearCrossover({.gamma = 0.5, .training = false}), 1.5);
  EXPECT_EQ(ChooseLinearStrategy(0, 0, {}), kGather);
}

TEST(LinearStrategy, SendsWhatTravels) {
  for (const LinearStrategy strategy : {kGather, kScatter}) {
    const StrategyLinearConfig config = {
        .tokens = 6, .in = 10, .out = 7, .strategy = strategy};
    const int64_t width = strategy == kGather ? 10 : 7;
    const Cost cost = StrategyLinearForwardCost(5, config, kRingCollectives);
    EXPECT_EQ(cost.total.bytes, (5 - 1) * 6 * width * 4);
  }
}

TEST(StrategyLinear, RefusesOnEveryRankAlike) {
  std::vector<Status> refusals(2);
  const Status ran = RunThreads(2, [&](const Communicator& comm) {
    EXPECT_EQ(StrategyLinear::Create(comm, {.in = -1}).status().code(),
              StatusCode::kInvalidArgument);
    EXPECT_EQ(
        StrategyLinear::Create(comm, {.dtype = DType::kI32}).status().code(),
        StatusCode::kUnsupported);
    refusals[static_cast<size_t>(comm.rank())] =
        StrategyLinear::Create(
            comm, {.in = 3, .strategy = comm.rank() == 0 ? kGather : kScatter})
            .status();
    return OkStatus();
  });
  ASSERT_TRUE(ran.ok()) << ran.ToString();
  for (const Status& refusal : refusals) {
    EXPECT_EQ(refusal.code(), StatusCode::kInvalidArgument);
    EXPECT_EQ(refusal.message(),
              "ranks 0 and 1 make different layers: \"linear layer of 0 "
              "tokens, 3 to 0, f32, that gathers its inputs\" and \"linear "
              "layer of 0 tokens, 3 to 0, f32, that scatters its outputs\"");
  }
}

// Parts of 2^52 bytes, of workspaces of 2^53, which are asked for at once: a
// part that nothing is made in is not.
TEST(StrategyLinear, RefusesOnEveryRankAlikeWhatIsTooLarge) {
  for (const LinearStrategy strategy : {kGather, kScatter}) {
    std::vector<Status> refusals(2);
    const Status ran = RunThreads(2, [&](const Communicator& comm) {
      const int64_t in = strategy == kGather ? 2 : 0;
      refusals[static_cast<size_t>(comm.rank())] =
          StrategyLinear::Create(comm, {.tokens = int64_t{1} << 50,
                                        .in = in,
                                        .out = 2 - in,
                                        .strategy = strategy})
              .status();
      return OkStatus();
    });
    ASSERT_TRUE(ran.ok()) << ran.ToString();
    for (const Status& refusal : refusals) {
      EXPECT_EQ(refusal.code(), StatusCode::kOutOfMemory);
      EXPECT_EQ(refusal.message().substr(0, 8), "rank 0: ");
      EXPECT_NE(refusal.message().find("8192 TiB"), std::string_view::npos)
          << refusal.message();
      EXPECT_EQ(refusal.ToString(), refusals[0].ToString());
    }
  }
}

TEST(StrategyLinear, GoesBackOnceForEachForward) {
  for (const LinearStrategy strategy : {kGather, kScatter}) {
    const Status ran = RunThreads(2, [&](const Communicator& comm) -> Status {
      SP_ASSIGN_OR_RETURN(
          const StrategyLinear layer,
          StrategyLinear::Create(
              comm, {.tokens = 1, .in = 2, .out = 2, .strategy = strategy}));
      const Floats x(1, 2), w(2, 3), dy(1, 7);
      Floats y(1), dx(1, -1), dw(2);
      const auto forward = [&] {
        return layer.Forward({.x = x.data(), .w = w.data(), .y = y.data()});
      };
      const auto backward = [&] {
        return layer.Backward({.x = x.data(),
                               .w = w.data(),
                               .dy = dy.data(),
                               .dx = dx.data(),
                               .dw = dw.data()});
      };
      EXPECT_EQ(backward().code(), StatusCode::kInvalidArgument);
      EXPECT_EQ(dx[0], -1);
      for (int i = 0; i < 2; ++i) {
        SP_RETURN_IF_ERROR(forward());
        SP_RETURN_IF_ERROR(backward());
        EXPECT_EQ(dx[0], 2 * 7 * 3);
        EXPECT_EQ(backward().code(), StatusCode::kInvalidArgument);
      }
      return OkStatus();
    });
    EXPECT_TRUE(ran.ok()) << ran.ToString();
  }
}

// Both passes with x = 2, w = 3, b = 5 and dy = 7 everywhere.
void Expect(int ranks, int64_t in, int64_t out) {
  for (const LinearStrategy strategy : {kGather, kScatter}) {
    const Status ran =
        RunThreads(ranks, [&](const Communicator& comm) -> Status {
          SP_ASSIGN_OR_RETURN(
              const StrategyLinear layer,
              StrategyLinear::Create(comm, {.tokens = 2,
                                            .in = in,
                                            .out = out,
                                            .bias = true,
                                            .strategy = strategy}));
          const auto i = static_cast<size_t>(layer.local_in());
          const auto o = static_cast<size_t>(layer.local_out());
          const size_t weights = strategy == kGather
                                     ? o * static_cast<size_t>(in)
                                     : i * static_cast<size_t>(out);
          const Floats x(2 * i, 2), w(weights, 3), b(o, 5), dy(2 * o, 7);
          Floats y(2 * o, -1), dx(2 * i, -1), dw(weights, -1), db(o, -1);
          SP_RETURN_IF_ERROR(
              layer.Forward({x.data(), w.data(), b.data(), y.data()}));
          SP_RETURN_IF_ERROR(layer.Backward({x.data(), w.data(), dy.data(),
                                             dx.data(), dw.data(), db.data()}));
          EXPECT_EQ(y, Floats(2 * o, static_cast<float>(in * 2 * 3 + 5)));
          EXPECT_EQ(dx, Floats(2 * i, static_cast<float>(out * 7 * 3)));
          EXPECT_EQ(dw, Floats(weights, 2 * 7 * 2));
          EXPECT_EQ(db, Floats(o, 2 * 7));
          return OkStatus();
        });
    EXPECT_TRUE(ran.ok()) << ran.ToString();
  }
}

TEST(StrategyLinear, OnOneRank) { Expect(1, 5, 4); }
TEST(StrategyLinear, MoreRanksThanFeatures) { Expect(5, 3, 2); }
TEST(StrategyLinear, WithoutInputs) { Expect(3, 0, 4); }
TEST(StrategyLinear, WithoutOutputs) { Expect(3, 4, 0); }

}  // namespace
}  // namespace shardproof
