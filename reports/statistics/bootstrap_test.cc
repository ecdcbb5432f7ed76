#include "reports/statistics/bootstrap.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <random>
#include <vector>

#include "reports/statistics/clopper_pearson.h"
#include "reports/statistics/order.h"

namespace shardproof {
namespace {

double Mean(std::span<const double> values) {
  double sum = 0;
  for (const double v : values) sum += v;
  return sum / static_cast<double>(values.size());
}

double PlugInVariance(std::span<const double> values) {
  const double mean = Mean(values);
  double sum = 0;
  for (const double v : values) sum += (v - mean) * (v - mean);
  return sum / static_cast<double>(values.size());
}

TEST(Bootstrap, OfTwoValuesByHand) {
  // The mean of two draws from {0, 1} is 0, 1/2, 1 with 1/4, 1/2, 1/4: at 60
  // percent the quantiles (0.2 and 0.8) are 0 and 1, at 40 percent 1/2 both.
  const std::vector<double> x = {0, 1};
  const auto wide = Bootstrap(x, Mean, {.confidence = 0.6});
  EXPECT_EQ(wide.estimate, 0.5);
  EXPECT_EQ(wide.percentile, (ConfidenceInterval{0, 1}));
  const auto narrow = Bootstrap(x, Mean, {.confidence = 0.4});
  EXPECT_EQ(narrow.percentile, (ConfidenceInterval{0.5, 0.5}));
}

TEST(Bootstrap, BcaOfALargestValueByHand) {
  // Four draws from 1, 2, 3, 4: the largest is at most 3 with (3/4)^4 = 0.316,
  // so z0 = quantile(0.316 + 0.684 / 2) = 0.407. Leaving out one value at a time
  // gives 4, 4, 4, 3, so a = 0.375 / (6 * 0.75^1.5) = 0.0962. At 82 percent z is
  // -1.341 and the level of the lower end 0.326: a 4, where the percentile's
  // (0.09), and levels without z0 (0.196) or without a (0.299), are 3 or less.
  const std::vector<double> x = {1, 2, 3, 4};
  const auto r = Bootstrap(x,
                           [](std::span<const double> s) {
                             return *std::max_element(s.begin(), s.end());
                           },
                           {.replicates = 200000, .confidence = 0.82});
  EXPECT_EQ(r.estimate, 4);
  EXPECT_EQ(r.percentile, (ConfidenceInterval{3, 4}));
  EXPECT_EQ(r.bca, (ConfidenceInterval{4, 4}));
}

TEST(Bootstrap, VarianceOfSpatialTestData) {
  // Efron and Tibshirani, table 14.1 and 14.2: test A of 26 children; theta is
  // the plug-in variance, 171.5. Published intervals at 90 percent, each from
  // 2000 replicates: percentile (100.8, 233.9), BCa (115.8, 259.6).
  const std::vector<double> a = {48, 36, 20, 29, 42, 42, 20, 42, 22,
                                 41, 45, 14, 6,  0,  33, 28, 34, 4,
                                 32, 24, 47, 41, 24, 26, 30, 41};
  const auto r =
      Bootstrap(a, PlugInVariance, {.replicates = 20000, .confidence = 0.9});
  EXPECT_NEAR(r.estimate, 171.5, 0.05);
  // Theirs are quantiles of 2000: 100 and 1900 of them, which are off by the
  // spread of an order statistic, about 2.5 below and 4 above; three of those.
  EXPECT_NEAR(r.percentile.low, 100.8, 8);
  EXPECT_NEAR(r.percentile.high, 233.9, 12);
  EXPECT_NEAR(r.bca.low, 115.8, 8);
  EXPECT_NEAR(r.bca.high, 259.6, 15);
  EXPECT_GT(r.bca.low, r.percentile.low + 8);
  EXPECT_GT(r.bca.high, r.percentile.high + 12);
}

TEST(Bootstrap, CoversTheTruth) {
  // Means of 30 values, 400 samples, at 90 percent: of a uniform distribution
  // both ends miss as often as they should; of a skewed one (exponential) the
  // lower end of BCa does, where that of a symmetric interval does not.
  constexpr int kSamples = 400;
  int covered = 0;
  int above = 0;
  for (int i = 0; i < kSamples; ++i) {
    std::mt19937_64 engine(100 + static_cast<uint64_t>(i));
    std::vector<double> uniform;
    std::vector<double> exponential;
    for (int k = 0; k < 30; ++k) {
      uniform.push_back((static_cast<double>(engine() >> 11) + 0.5) * 0x1p-53);
      exponential.push_back(-std::log(uniform.back()));
    }
    const BootstrapOptions options{.replicates = 400, .confidence = 0.9};
    if (Bootstrap(uniform, Mean, options).bca.Contains(0.5)) ++covered;
    if (Bootstrap(exponential, Mean, options).bca.low > 1) ++above;
  }
  EXPECT_TRUE(ClopperPearson(covered, kSamples, 0.99).Contains(0.9)) << covered;
  EXPECT_TRUE(ClopperPearson(above, kSamples, 0.99).Contains(0.05)) << above;
}

TEST(Bootstrap, IsAFunctionOfTheSeed) {
  const std::vector<double> x = {1, 2, 4, 8, 16, 32};
  const auto a = Bootstrap(x, Mean);
  EXPECT_EQ(Bootstrap(x, Mean).bca, a.bca);
  EXPECT_NE(Bootstrap(x, Mean, {.seed = 2}).bca, a.bca);
}

TEST(Bootstrap, OfAStatisticWithTies) {
  std::vector<double> x = {5, 5, 5, 5, 5, 5, 5, 6, 4};
  const auto r = Bootstrap(x, [](std::span<const double> s) {
    return Median({s.begin(), s.end()});
  });
  EXPECT_EQ(r.estimate, 5);
  EXPECT_EQ(r.bca, (ConfidenceInterval{5, 5}));
}

TEST(Bootstrap, OfTooLittleNothingIsKnown) {
  const double nan = std::nan("");
  const double infinity = std::numeric_limits<double>::infinity();
  const ConfidenceInterval unknown;
  for (const std::vector<double>& x :
       {std::vector<double>{}, {1}, {1, nan, 2}, {1, infinity}}) {
    const auto r = Bootstrap(x, Mean);
    EXPECT_EQ(r.percentile, unknown);
    EXPECT_EQ(r.bca, unknown);
  }
  EXPECT_TRUE(std::isnan(Bootstrap({}, Mean).estimate));
  const std::vector<double> x = {1, 2, 3, 4, 5, 6, 7, 8};
  const auto never = Bootstrap(x, [&](std::span<const double>) { return nan; });
  EXPECT_EQ(never.bca, unknown);
  // Seldom a number, but for the sample itself.
  const auto seldom = Bootstrap(x, [&](std::span<const double> s) {
    return s[0] == 1 && s[1] == 2 ? 1 : nan;
  });
  EXPECT_EQ(seldom.estimate, 1);
  EXPECT_EQ(seldom.percentile, unknown);
}

TEST(Bootstrap, WithoutSpreadTheIntervalIsAPoint) {
  const auto r = Bootstrap(std::vector<double>(5, 2.0), Mean);
  EXPECT_EQ(r.percentile, (ConfidenceInterval{2, 2}));
  EXPECT_EQ(r.bca, (ConfidenceInterval{2, 2}));
}

TEST(Bootstrap, ReplicatesMayBeInfinite) {
  // 1 / mean, where one in many resamples has a mean of 0.
  const std::vector<double> x = {0, 0, 1, 1};
  const auto r =
      Bootstrap(x, [](std::span<const double> s) { return 1 / Mean(s); },
                {.confidence = 0.95});
  EXPECT_EQ(r.estimate, 2);
  EXPECT_EQ(r.percentile.low, 1);
  EXPECT_EQ(r.percentile.high, std::numeric_limits<double>::infinity());
  EXPECT_EQ(r.bca, r.percentile);
}

}  // namespace
}  // namespace shardproof
