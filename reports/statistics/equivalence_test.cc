#include "reports/statistics/equivalence.h"

#include <gtest/gtest.h>

#include <cmath>
#include <vector>

namespace shardproof {
namespace {

// Mean 0.02 and standard deviation 0.02, by hand.
const std::vector<double> kDifferences = {0.0, 0.0, 0.02, 0.04, 0.04};

TEST(Equivalence, IsTheNinetyPercentInterval) {
  // 0.02 +- 2.131847 * 0.02 / sqrt(5).
  const TTest test = OneSampleT(kDifferences);
  const EquivalenceTest five = Equivalence(test, 0.05);
  const double half = 2.131847 * 0.02 / std::sqrt(5.0);
  EXPECT_NEAR(five.interval.low, 0.02 - half, 1e-8);
  EXPECT_NEAR(five.interval.high, 0.02 + half, 1e-8);
  EXPECT_TRUE(five.equivalent);  // 0.0391 < ln(1.05) = 0.0488
  EXPECT_LT(five.p, 0.05);
  const EquivalenceTest three = Equivalence(test, 0.03);
  EXPECT_FALSE(three.equivalent);
  EXPECT_GT(three.p, 0.05);
}

TEST(Equivalence, TurnsWherePIsAlpha) {
  const TTest test = OneSampleT(kDifferences);
  const double edge = Equivalence(test, 0.05).interval.high;
  EXPECT_TRUE(Equivalence(test, std::expm1(edge + 1e-9)).equivalent);
  EXPECT_FALSE(Equivalence(test, std::expm1(edge - 1e-9)).equivalent);
  EXPECT_NEAR(Equivalence(test, std::expm1(edge)).p, 0.05, 1e-9);
}

TEST(Equivalence, IsMirrored) {
  std::vector<double> minus;
  for (const double x : kDifferences) minus.push_back(-x);
  for (const double share : {0.03, 0.05}) {
    const auto a = Equivalence(OneSampleT(kDifferences), share);
    const auto b = Equivalence(OneSampleT(minus), share);
    EXPECT_EQ(a.equivalent, b.equivalent);
    EXPECT_EQ(a.p, b.p);
    EXPECT_EQ(a.interval.low, -b.interval.high);
  }
}

TEST(Equivalence, IsNotClaimedOfLittle) {
  EXPECT_FALSE(Equivalence(OneSampleT({}), 0.05).equivalent);
  EXPECT_FALSE(
      Equivalence(OneSampleT(std::vector<double>{0}), 0.05).equivalent);
  EXPECT_EQ(Equivalence(OneSampleT(std::vector<double>{0}), 0.05).p, 1);
  const std::vector<double> bad = {0, 0, std::nan("")};
  EXPECT_FALSE(Equivalence(OneSampleT(bad), 0.05).equivalent);
}

TEST(Equivalence, WithoutSpreadTheMeanDecides) {
  const auto of = [](double x) {
    return Equivalence(OneSampleT(std::vector<double>(4, x)), 0.05);
  };
  EXPECT_TRUE(of(0.048).equivalent);
  EXPECT_EQ(of(0.048).p, 0);
  EXPECT_FALSE(of(0.05).equivalent);
  EXPECT_EQ(of(0.05).p, 1);
}

}  // namespace
}  // namespace shardproof
