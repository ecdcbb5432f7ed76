#include "reports/statistics/sign_flip.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <vector>

namespace shardproof {
namespace {

double P(const std::vector<double>& d) { return SignFlip(d); }

TEST(SignFlip, FiveNumbersByHand) {
  EXPECT_EQ(P({1, 2, 3, 4, 5}), 1.0 / 32);
  // Sum 13: all plus (15), and ours.
  EXPECT_EQ(P({-1, 2, 3, 4, 5}), 2.0 / 32);
  // Sum 9: what is minus sums to 0, 1, 2, 3 (two ways).
  EXPECT_EQ(P({1, 2, -3, 4, 5}), 5.0 / 32);
  EXPECT_EQ(P({-1, -2, -3, -4, -5}), 1);
  // Ties: the one that is minus may be any of five.
  EXPECT_EQ(P({1, 1, -1, 1, 1}), 6.0 / 32);
  EXPECT_EQ(P({0, 0, 0, 0, 0}), 1);
  EXPECT_EQ(P({7}), 0.5);
}

TEST(SignFlip, TiesOfExactArithmeticAreTies) {
  // 0.1 + 0.2 - 0.3 is 5.6e-17 and its mirror -5.6e-17: both are 0.
  EXPECT_EQ(P({0.1, 0.2, -0.3}), 5.0 / 8);
  EXPECT_EQ(P({1, 2, -3}), 5.0 / 8);
}

TEST(SignFlip, DarwinsMaize) {
  // Fisher, The Design of Experiments, section 21: heights of 15 pairs of
  // plants, eighths of an inch; 863 of the 32768 are as large or larger.
  EXPECT_EQ(P({49, -67, 8, 16, 6, 23, 28, 41, 14, 29, 56, 24, 75, 60, -48}),
            863.0 / 32768);
}

TEST(SignFlip, IsAnEnumeration) {
  std::vector<double> d;
  for (int n = 1; n <= 12; ++n) {
    d.push_back((n * 7) % 11 - 3.5);
    double sum = 0;
    for (const double x : d) sum += x;
    int found = 0;
    for (int signs = 0; signs < 1 << n; ++signs) {
      double flipped = 0;
      for (int i = 0; i < n; ++i) {
        flipped += (signs >> i & 1) != 0 ? d[i] : -d[i];
      }
      if (flipped >= sum) ++found;  // Halves: exact.
    }
    EXPECT_EQ(SignFlip(d), found / std::ldexp(1.0, n)) << n;
  }
}

TEST(SignFlip, SamplesWhatIsTooManyToCount) {
  std::vector<double> d;
  for (int i = 0; i < kExactSignFlips; ++i) d.push_back((i * 37) % 60 - 22);
  const double exact = SignFlip(d);
  ASSERT_GT(exact, 0.02);
  ASSERT_LT(exact, 0.2);
  d.push_back(0);  // Which changes nothing but the way.
  ASSERT_GT(d.size(), static_cast<size_t>(kExactSignFlips));
  constexpr int kSamples = 20000;
  const double sampled = SignFlip(d, 1, kSamples);
  EXPECT_NE(sampled, exact);
  // Five standard deviations of a binomial share; the seed is fixed.
  EXPECT_NEAR(sampled, exact, 5 * std::sqrt(exact * (1 - exact) / kSamples));
  EXPECT_EQ(SignFlip(d, 1, kSamples), sampled);
  EXPECT_NE(SignFlip(d, 2, kSamples), sampled);
  // Never 0.
  EXPECT_EQ(SignFlip(std::vector<double>(64, 1.0), 1, 99), 1.0 / 100);
}

TEST(SignFlip, OfNothingIsNoFinding) {
  EXPECT_EQ(P({}), 1);
  EXPECT_EQ(P({1, std::nan(""), 2}), 1);
  EXPECT_EQ(P({1, std::numeric_limits<double>::infinity()}), 1);
  EXPECT_EQ(P({1e308, 1e308, 1e308}), 1);
}

}  // namespace
}  // namespace shardproof
