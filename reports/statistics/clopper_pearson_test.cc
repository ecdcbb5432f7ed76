#include "reports/statistics/clopper_pearson.h"

#include <gtest/gtest.h>

#include <cmath>
#include <utility>

namespace shardproof {
namespace {

// P(Binomial(n, p) <= k), the slow way.
double BinomialCdf(int n, double p, int k) {
  double sum = 0;
  double term = std::pow(1 - p, n);
  for (int i = 0; i <= k; ++i) {
    sum += term;
    term *= (n - i) / (i + 1.0) * p / (1 - p);
  }
  return sum;
}

TEST(ClopperPearson, MendelsPeasInTheDocumentationOfR) {
  // binom.test(682, 682 + 243).
  const ConfidenceInterval interval = ClopperPearson(682, 925, 0.95);
  EXPECT_NEAR(interval.low, 0.7076683, 5e-8);
  EXPECT_NEAR(interval.high, 0.7654066, 5e-8);
}

TEST(ClopperPearson, WithoutAnyOrWithoutAMiss) {
  // 1 - (1 - confidence)^(1 / n), by hand.
  EXPECT_NEAR(ClopperPearsonHigh(0, 300, 0.95), 1 - std::pow(0.05, 1.0 / 300),
              1e-15);
  EXPECT_LT(ClopperPearsonHigh(0, 300, 0.95), 0.01);
  EXPECT_GT(ClopperPearsonHigh(0, 298, 0.95), 0.01);
  EXPECT_EQ(ClopperPearsonLow(0, 300, 0.95), 0);
  EXPECT_NEAR(ClopperPearsonLow(50, 50, 0.95), std::pow(0.05, 1.0 / 50), 1e-15);
  EXPECT_EQ(ClopperPearsonHigh(50, 50, 0.95), 1);
}

TEST(ClopperPearson, SolvesTheTails) {
  for (const int n : {2, 10, 50}) {
    for (const int k : {1, n / 2, n - 1}) {
      const double high = ClopperPearsonHigh(k, n, 0.95);
      const double low = ClopperPearsonLow(k, n, 0.95);
      EXPECT_NEAR(BinomialCdf(n, high, k), 0.05, 1e-9) << n;
      EXPECT_NEAR(1 - BinomialCdf(n, low, k - 1), 0.05, 1e-9) << n;
      EXPECT_EQ(ClopperPearson(k, n, 0.9), (ConfidenceInterval{low, high}));
    }
  }
}

TEST(ClopperPearson, OfNothingAnyShareIsPossible) {
  for (const auto& [k, n] : {std::pair(0, 0), {1, 0}, {-1, 5}, {6, 5}}) {
    EXPECT_EQ(ClopperPearson(k, n, 0.95), (ConfidenceInterval{0, 1})) << k;
  }
}

}  // namespace
}  // namespace shardproof
