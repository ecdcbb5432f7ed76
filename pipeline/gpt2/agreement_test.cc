#include "pipeline/gpt2/agreement.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "pipeline/gpt2/training.h"
#include "reference/bounded.h"
#include "reference/probe.h"

namespace shardproof::gpt2 {
namespace {

// --- Numbers by hand ---------------------------------------------------------

TEST(AllowedDifferences, AreTheFactorTimesTheDeviation) {
  const std::vector<double> single = {4, 2};
  const std::vector<std::vector<double>> runs = {{4 + 3e-6, 2}, {4 - 1e-6, 2}};
  const std::vector<double> allowed = AllowedDifferences(single, runs, 10);
  const double factor = ProbedLambda(Lambda(10), 2);
  ASSERT_EQ(allowed.size(), 2U);
  // (9 + 1) / 2. Differences of numbers near 4 are exact to 2^-51.
  EXPECT_NEAR(allowed[0] / factor, std::sqrt(5.0) * 1e-6, 0x1p-50);
  EXPECT_EQ(allowed[1], 0);
}

TEST(AllowedDifferences, WithoutRunsEverythingIs) {
  EXPECT_EQ(AllowedDifferences(std::vector<double>{1}, {}, 1)[0], HUGE_VAL);
}

TEST(Compare, SaysWhereTheLargestIsAndHowMuchOfWhatIsAllowed) {
  const std::vector<double> single = {4, 3, 2}, allowed = {0.25, 1, 0.5};
  const Agreement a =
      Compare(std::vector<double>{4.25, 3.5, 2}, single, allowed);
  EXPECT_TRUE(a.equal);
  EXPECT_EQ(a.largest, 0.5);
  EXPECT_EQ(a.step, 1U);
  EXPECT_EQ(a.share, 1);
  EXPECT_FALSE(Compare(std::vector<double>{4.5, 3, 2}, single, allowed).equal);
}

TEST(Compare, RefusesWhatIsNoNumberOrMissing) {
  const std::vector<double> single = {4, 3}, allowed = {HUGE_VAL, HUGE_VAL};
  const double nan = std::numeric_limits<double>::quiet_NaN();
  EXPECT_FALSE(Compare(std::vector<double>{nan, 3}, single, allowed).equal);
  EXPECT_FALSE(Compare(std::vector<double>{4}, single, allowed).equal);
  EXPECT_TRUE(Compare(single, single, allowed).equal);
  // And shows it, whatever comes after.
  const Agreement a = Compare(std::vector<double>{nan, 5}, single, allowed);
  EXPECT_TRUE(std::isnan(a.largest));
  EXPECT_TRUE(std::isnan(a.share));
  EXPECT_EQ(a.step, 0U);
}

// --- Runs --------------------------------------------------------------------

constexpr TrainingOptions kSmall = {.blocks = 2,
                                    .hidden = 16,
                                    .heads = 2,
                                    .vocabulary = 256,
                                    .length = 8,
                                    .sequences = 4,
                                    .steps = 6};
constexpr int kRuns = 32;

Curve Trained(std::string_view layout, const std::vector<float>& initial,
              const CollectiveFamily& family = kAutoCollectives) {
  StatusOr<Curve> curve = Train(kSmall, *ParseLayout(layout), initial, family);
  EXPECT_TRUE(curve.ok()) << curve.status().ToString();
  return curve.ok() ? *std::move(curve) : Curve();
}

struct Equality {
  bool losses = false, norms = false;
};

class Layouts : public testing::Test {
 protected:
  Layouts() : initial_(InitialParameters(kSmall)) {
    single_ = Trained("tp=1", initial_);
    std::vector<std::vector<double>> losses, norms;
    for (uint64_t k = 0; k < kRuns; ++k) {
      std::vector<float> moved = initial_;
      MoveToNeighbours(k, moved);
      const Curve curve = Trained("tp=1", moved);
      losses.push_back(curve.losses);
      norms.push_back(curve.norms);
    }
    losses_ = AllowedDifferences(single_.losses, losses, 100);
    norms_ = AllowedDifferences(single_.norms, norms, 100);
  }
  Equality Equal(std::string_view layout,
                 const CollectiveFamily& family = kAutoCollectives) {
    const Curve curve = Trained(layout, initial_, family);
    const Agreement loss = Compare(curve.losses, single_.losses, losses_);
    const Agreement norm = Compare(curve.norms, single_.norms, norms_);
    RecordProperty(
        std::string(family.name) + " " + std::string(layout),
        std::to_string(loss.share) + " " + std::to_string(norm.share));
    return {loss.equal, norm.equal};
  }

  std::vector<float> initial_;
  Curve single_;
  std::vector<double> losses_, norms_;  // Allowed.
};

constexpr float kFactor = 1 + 1e-3F;

// What is sent, or what arrives, times 1 + 1e-3; not of a rank by itself, which
// is tensor parallelism here, and no gradient.
Status Scaled(const Communicator& comm, const AllReduceArgs& args, bool sent) {
  if (comm.size() == 1) return AllReduce(comm, args);
  const auto* const from = static_cast<const float*>(args.send);
  std::vector<float> own(from, from + args.count);
  if (sent) {
    for (float& x : own) x *= kFactor;
  }
  AllReduceArgs copied = args;
  copied.send = own.data();
  SP_RETURN_IF_ERROR(AllReduce(comm, copied));
  if (sent) return OkStatus();
  for (int64_t i = 0; i < args.count; ++i) {
    static_cast<float*>(args.recv)[i] *= kFactor;
  }
  return OkStatus();
}

TEST_F(Layouts, AreEqual) {
  for (const char* layout : {"tp=2", "pp=2", "dp=2", "dp=4,zero=2",
                             "cp=2,zero=3", "tp=2,pp=2", "cp=2,dp=2"}) {
    const Equality equal = Equal(layout);
    EXPECT_TRUE(equal.losses) << layout;
    EXPECT_TRUE(equal.norms) << layout;
  }
}

TEST_F(Layouts, DifferWhereARankCountsMoreThanAnother) {
  CollectiveFamily family = kAutoCollectives;
  family.name = "one rank times 1.001";
  family.all_reduce = [](const Communicator& comm, const AllReduceArgs& args) {
    if (comm.rank() == 0) return Scaled(comm, args, /*sent=*/true);
    return AllReduce(comm, args);
  };
  EXPECT_FALSE(Equal("dp=2", family).losses);
}

// Activations with tp; a tied table, which is on the first stage and on the last;
// all gradients with dp.
TEST_F(Layouts, DifferWhereWhatOthersAddIsLost) {
  CollectiveFamily family = kAutoCollectives;
  family.name = "own part only";
  family.all_reduce = [](const Communicator& /*comm*/,
                         const AllReduceArgs& args) -> Status {
    const auto* const from = static_cast<const float*>(args.send);
    const std::vector<float> own(from, from + args.count);
    std::copy(own.begin(), own.end(), static_cast<float*>(args.recv));
    return OkStatus();
  };
  for (const char* layout : {"tp=2", "pp=2", "dp=2"}) {
    EXPECT_FALSE(Equal(layout, family).losses) << layout;
  }
}

// Every rank trains its own shard, and reads the others' as they were at first.
TEST_F(Layouts, DifferWhereTrainedShardsAreNotGathered) {
  CollectiveFamily family = kAutoCollectives;
  family.name = "stale shards";
  family.all_gather = [](const Communicator& comm,
                         const AllGatherVArgs& args) -> Status {
    if (args.dtype == DType::kF32) return OkStatus();
    return kAutoCollectives.all_gather(comm, args);
  };
  EXPECT_FALSE(Equal("dp=2,zero=1", family).losses);
}

// As agreement.h says: AdamW divides it away.
TEST_F(Layouts, ShowAFactorOnAllGradientsInTheirNormOnly) {
  CollectiveFamily family = kAutoCollectives;
  family.name = "all gradients times 1.001";
  family.all_reduce = [](const Communicator& comm, const AllReduceArgs& args) {
    return Scaled(comm, args, /*sent=*/false);
  };
  const Equality equal = Equal("dp=2", family);
  EXPECT_TRUE(equal.losses);
  EXPECT_FALSE(equal.norms);
}

// --- Training ----------------------------------------------------------------

TEST(Training, LearnsSomething) {
  const std::vector<double> losses =
      Trained("tp=1", InitialParameters(kSmall)).losses;
  ASSERT_EQ(losses.size(), 6U);
  EXPECT_LT(losses.back(), losses.front());
}

TEST(Training, PredictsTheNextByte) {
  for (const int step : {0, 7, 100000}) {
    const Batch batch = BatchOf(kSmall, step);
    ASSERT_EQ(batch.ids.size(), 32U);
    for (size_t i = 0; i < batch.ids.size(); ++i) {
      if (i % 8 != 7) {
        EXPECT_EQ(batch.targets[i], batch.ids[i + 1]) << i;
      }
    }
  }
  const Batch first = BatchOf(kSmall, 0);
  EXPECT_EQ(first.ids[0], SampleText()[0]);
  EXPECT_EQ(first.targets[31], SampleText()[32]);
  EXPECT_NE(first.ids, BatchOf(kSmall, 1).ids);
}

TEST(Training, MovesEveryParameterButZerosByOneFloat) {
  std::vector<float> moved = InitialParameters(kSmall);
  const std::vector<float> initial = moved;
  MoveToNeighbours(1, moved);
  int64_t up = 0, down = 0;
  for (size_t i = 0; i < moved.size(); ++i) {
    if (initial[i] == 0) {
      EXPECT_EQ(moved[i], 0);
    } else {
      EXPECT_EQ(std::nextafter(moved[i], initial[i]), initial[i]);
      EXPECT_NE(moved[i], initial[i]);
      ++(moved[i] > initial[i] ? up : down);
    }
  }
  EXPECT_GT(up, 0);
  EXPECT_GT(down, 0);
}

TEST(Training, StartsWithTheDeviationsThatItSays) {
  const LanguageModelConfig model = ModelOf(kSmall);
  const std::vector<float> initial = InitialParameters(kSmall);
  for (const LanguageModelParameter& p : LanguageModelParameters(model)) {
    double sum = 0, squares = 0;
    const auto n = static_cast<double>(p.shape.NumElements());
    for (int64_t i = p.begin; i < p.end(); ++i) {
      const double x = initial[static_cast<size_t>(i)];
      sum += x;
      squares += x * x;
    }
    const double deviation = std::sqrt(squares / n);
    if (p.shape.rank() >= 2) {
      // The deviation of an estimate from n numbers is that of the numbers over
      // sqrt(2 n), and normal numbers are within 6 of their deviations.
      const double stated = p.name == "positions" ? 0.01 : 0.02;
      EXPECT_NEAR(deviation, stated, 6 * stated / std::sqrt(2 * n)) << p.name;
    } else {
      EXPECT_EQ(sum, p.name.ends_with("_w") ? n : 0) << p.name;
      EXPECT_EQ(squares, sum) << p.name;
    }
  }
}

TEST(Training, ParsesLayouts) {
  const StatusOr<Layout> layout = ParseLayout("tp=2,zero=3,dp=2");
  ASSERT_TRUE(layout.ok());
  EXPECT_EQ(layout->zero, 3);
  EXPECT_EQ(layout->mesh.tp(), 2);
  EXPECT_EQ(layout->mesh.dp(), 2);
  EXPECT_EQ(Describe(*layout), "tp=2,dp=2,zero=3");
  for (const char* wrong :
       {"zero=4,dp=2", "zero=,dp=2", "dp=2,zero=1x", "tp", "zp=2", "dp=0"}) {
    EXPECT_FALSE(ParseLayout(wrong).ok()) << wrong;
  }
}

TEST(Training, RefusesWhatIsLongerThanTheText) {
  TrainingOptions options = kSmall;
  options.length = static_cast<int64_t>(SampleText().size());
  EXPECT_EQ(Train(options, *ParseLayout("tp=1"), {}).status().code(),
            StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace shardproof::gpt2
