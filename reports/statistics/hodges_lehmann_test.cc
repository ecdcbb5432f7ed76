#include "reports/statistics/hodges_lehmann.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <vector>

namespace shardproof {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();

TEST(HodgesLehmann, DepressionOfHollanderAndWolfe) {
  // Examples 3.3 and 3.4: Hamilton's scale before and after, nine patients.
  const std::vector<double> before = {1.83, 0.50, 1.62, 2.48, 1.68,
                                      1.88, 1.55, 3.06, 1.30};
  const std::vector<double> after = {0.878, 0.647, 0.598, 2.05, 1.06,
                                     1.29,  1.06,  3.14,  1.29};
  std::vector<double> d;
  for (size_t i = 0; i < before.size(); ++i) d.push_back(after[i] - before[i]);
  EXPECT_NEAR(HodgesLehmann(d), -0.46, 1e-12);
  // The exact confidence is 96.1 percent.
  const ConfidenceInterval interval = HodgesLehmannInterval(d, 0.95);
  EXPECT_NEAR(interval.low, -0.786, 1e-12);
  EXPECT_NEAR(interval.high, -0.010, 1e-12);
  EXPECT_EQ(HodgesLehmannInterval(d, 0.96), interval);
  EXPECT_LT(HodgesLehmannInterval(d, 0.97).low, interval.low);
}

TEST(HodgesLehmann, WilcoxonsQuantilesOfTheTables) {
  // Of Hollander and Wolfe's table A.4, as lower tails: n = 9 has
  // P(T+ <= 5) = 0.020 and P(T+ <= 6) = 0.027; n = 10 has P(T+ <= 8) = 0.024.
  EXPECT_EQ(WilcoxonQuantile(9, 0.025), 5);
  EXPECT_EQ(WilcoxonQuantile(10, 0.025), 8);
  EXPECT_EQ(WilcoxonQuantile(6, 0.025), 0);
  EXPECT_EQ(WilcoxonQuantile(5, 0.025), -1);
  EXPECT_EQ(WilcoxonQuantile(5, 0.05), 0);
  EXPECT_EQ(WilcoxonQuantile(20, 0.025), 52);
  EXPECT_EQ(WilcoxonQuantile(50, 0.025), 434);
  EXPECT_EQ(WilcoxonQuantile(0, 0.025), -1);
  EXPECT_EQ(WilcoxonQuantile(9, 0), -1);
}

TEST(HodgesLehmann, NormalBeyondTheTableGoesOnWhereItStops) {
  // Steps from n to n + 1 stay smooth where the way of computing changes:
  // second differences of the exact quantiles are within 2, as those before.
  for (int n = 56; n <= 64; ++n) {
    const int bend = WilcoxonQuantile(n + 2, 0.025) -
                     2 * WilcoxonQuantile(n + 1, 0.025) +
                     WilcoxonQuantile(n, 0.025);
    EXPECT_LE(std::abs(bend), 2) << n;
  }
}

TEST(HodgesLehmann, ByHand) {
  // Walsh averages of 1, 2, 9: 1, 1.5, 2, 5, 5.5, 9.
  EXPECT_EQ(HodgesLehmann(std::vector<double>{9, 1, 2}), 3.5);
  EXPECT_EQ(HodgesLehmann(std::vector<double>{4}), 4);
  // One wild launch of eleven moves it little.
  std::vector<double> d = {0, 0.01, -0.01, 0.02, -0.02, 0, 0.01, -0.01, 0, 0};
  d.push_back(50);
  EXPECT_LT(std::abs(HodgesLehmann(d)), 0.011);
  // y - x: 1 - 0, 5 - 0, 1 - 2, 5 - 2.
  EXPECT_EQ(
      HodgesLehmannShift(std::vector<double>{0, 2}, std::vector<double>{1, 5}),
      2);
}

TEST(HodgesLehmann, IsMirrored) {
  const std::vector<double> d = {0.5, -0.1, 0.7, 0.3, 0.2, 0.9, -0.4};
  std::vector<double> minus;
  for (const double x : d) minus.push_back(-x);
  EXPECT_EQ(HodgesLehmann(minus), -HodgesLehmann(d));
  EXPECT_EQ(HodgesLehmannInterval(minus, 0.95).low,
            -HodgesLehmannInterval(d, 0.95).high);
}

TEST(HodgesLehmann, OfLittle) {
  EXPECT_TRUE(std::isnan(HodgesLehmann({})));
  EXPECT_TRUE(std::isnan(HodgesLehmannShift({}, std::vector<double>{1})));
  EXPECT_EQ(HodgesLehmann(std::vector<double>{1, std::nan(""), kInfinity}), 1);
  for (size_t n = 0; n < 6; ++n) {
    const ConfidenceInterval interval =
        HodgesLehmannInterval(std::vector<double>(n, 1.0), 0.95);
    EXPECT_EQ(interval, ConfidenceInterval()) << n;
  }
  const ConfidenceInterval six =
      HodgesLehmannInterval(std::vector<double>(6, 1.0), 0.95);
  EXPECT_EQ(six, (ConfidenceInterval{1, 1}));
}

}  // namespace
}  // namespace shardproof
