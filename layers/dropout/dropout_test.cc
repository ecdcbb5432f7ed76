// What the case cannot say: refusals, that the mask is the same for any number
// of ranks, that shards are independent, and parts of something larger.
#include "layers/dropout/dropout.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <vector>

#include "collectives/backend/thread/thread_world.h"
#include "collectives/chunks.h"

namespace shardproof {
namespace {

using Floats = std::vector<float>;

// Each rank's y of an x of ones.
std::vector<Floats> RunDropout(int ranks, const ParallelDropoutConfig& config,
                               uint64_t call) {
  std::vector<Floats> parts(static_cast<size_t>(ranks));
  const Status ran = RunThreads(ranks, [&](const Communicator& comm) -> Status {
    SP_ASSIGN_OR_RETURN(const ParallelDropout layer,
                        ParallelDropout::Create(comm, config));
    const Floats x(
        static_cast<size_t>(config.outer * layer.local_units() * config.inner),
        1);
    Floats y(x.size(), -1), dx(x.size(), -1);
    SP_RETURN_IF_ERROR(
        layer.Forward({.x = x.data(), .y = y.data(), .call = call}));
    SP_RETURN_IF_ERROR(
        layer.Backward({.dy = x.data(), .dx = dx.data(), .call = call}));
    EXPECT_EQ(y, dx);
    parts[static_cast<size_t>(comm.rank())] = std::move(y);
    return OkStatus();
  });
  EXPECT_TRUE(ran.ok()) << ran.ToString();
  return parts;
}

// The parts put together.
Floats Gathered(const std::vector<Floats>& parts,
                const ParallelDropoutConfig& c) {
  const auto ranks = static_cast<int64_t>(parts.size());
  Floats whole;
  for (int64_t a = 0; a < c.outer; ++a) {
    for (int64_t r = 0; r < ranks; ++r) {
      const Floats& part = parts[static_cast<size_t>(r)];
      const int64_t n = BalancedChunk(c.units, ranks, r).count * c.inner;
      whole.insert(whole.end(), part.begin() + a * n,
                   part.begin() + (a + 1) * n);
    }
  }
  return whole;
}

TEST(ParallelDropout, AnyNumberOfRanksHasTheSameMask) {
  for (const ParallelDropoutConfig& shape :
       {ParallelDropoutConfig{.units = 7, .inner = 33},
        ParallelDropoutConfig{.outer = 7, .units = 33},
        ParallelDropoutConfig{.outer = 2, .units = 3, .inner = 35}}) {
    ParallelDropoutConfig config = shape;
    config.probability = 0.3;
    config.seed = 11;
    const Floats one = RunDropout(1, config, 5)[0];
    for (const int ranks : {2, 3, 4, 5, 8}) {
      config.sharded = false;
      for (const Floats& replica : RunDropout(ranks, config, 5)) {
        EXPECT_EQ(replica, one) << ranks << " ranks";
      }
      config.sharded = true;
      EXPECT_EQ(Gathered(RunDropout(ranks, config, 5), config), one)
          << ranks << " ranks";
    }
  }
}

// Agreements of the masks of two shards, or of two calls, are those of two
// coins: within six standard deviations.
TEST(ParallelDropout, ShardsAndCallsAreIndependent) {
  constexpr double kCount = 1 << 14, kHalf = 0.5;
  const ParallelDropoutConfig config = {
      .units = 4, .inner = 1 << 14, .sharded = true, .probability = kHalf};
  const std::vector<Floats> parts = RunDropout(4, config, 0);
  const std::vector<Floats> next = RunDropout(4, config, 1);
  const auto expect = [](const Floats& a, const Floats& b) {
    double agree = 0;
    for (size_t i = 0; i < a.size(); ++i) agree += a[i] == b[i] ? 1 : 0;
    EXPECT_NEAR(agree, kCount * kHalf, 6 * std::sqrt(kCount * kHalf * kHalf));
  };
  for (size_t r = 0; r < 4; ++r) {
    for (size_t s = r + 1; s < 4; ++s) expect(parts[r], parts[s]);
    expect(parts[r], next[r]);
  }
}

// Two data-parallel halves of a batch of six tokens.
TEST(ParallelDropout, PartsOfSomethingLarger) {
  ParallelDropoutConfig config = {
      .units = 6, .inner = 5, .probability = 0.5, .seed = 3};
  const Floats whole = RunDropout(1, config, 9)[0];
  config.units = 3;
  Floats halves = RunDropout(1, config, 9)[0];
  config.first = 15;
  const Floats second = RunDropout(1, config, 9)[0];
  halves.insert(halves.end(), second.begin(), second.end());
  EXPECT_EQ(halves, whole);
}

TEST(ParallelDropout, EdgesOfTheProbability) {
  EXPECT_EQ(RunDropout(2, {.units = 9}, 0)[1], Floats(9, 1));
  const Floats rare =
      RunDropout(1, {.units = 9, .probability = 1 - 0x1p-30}, 0)[0];
  EXPECT_EQ(rare, Floats(9, 0));
}

TEST(ParallelDropout, RefusesOnEveryRankAlike) {
  const ParallelDropoutConfig one = {.units = 4, .probability = 0.5};
  std::vector<ParallelDropoutConfig> others(8, one);
  others[0].outer = 2;
  others[1].units = 5;
  others[2].inner = 2;
  others[3].sharded = true;
  others[4].probability = 0.25;
  others[5].seed = 1;
  others[6].first = 1;
  others[7].dtype = DType::kF64;
  for (const ParallelDropoutConfig& other : others) {
    std::vector<Status> refusals(3);
    const Status ran = RunThreads(3, [&](const Communicator& comm) {
      refusals[static_cast<size_t>(comm.rank())] =
          ParallelDropout::Create(comm, comm.rank() == 1 ? other : one)
              .status();
      return OkStatus();
    });
    ASSERT_TRUE(ran.ok()) << ran.ToString();
    for (const Status& refusal : refusals) {
      EXPECT_EQ(refusal.code(), StatusCode::kInvalidArgument);
      EXPECT_EQ(refusal.message(), refusals[0].message());
    }
  }
}

TEST(ParallelDropout, RefusesSizesTypesAndProbabilities) {
  const auto code = [](const ParallelDropoutConfig& config) {
    StatusCode found = StatusCode::kOk;
    const Status ran = RunThreads(1, [&](const Communicator& comm) {
      found = ParallelDropout::Create(comm, config).status().code();
      return OkStatus();
    });
    EXPECT_TRUE(ran.ok()) << ran.ToString();
    return found;
  };
  EXPECT_EQ(code({.outer = -1}), StatusCode::kInvalidArgument);
  EXPECT_EQ(code({.units = -1}), StatusCode::kInvalidArgument);
  EXPECT_EQ(code({.inner = -1}), StatusCode::kInvalidArgument);
  EXPECT_EQ(code({.dtype = DType::kI8}), StatusCode::kUnsupported);
  for (const double p : {-0.5, 1.0, std::numeric_limits<double>::quiet_NaN()}) {
    EXPECT_EQ(code({.probability = p}), StatusCode::kInvalidArgument);
  }
}

}  // namespace
}  // namespace shardproof
