#include "reports/statistics/order.h"

#include <gtest/gtest.h>

#include <cmath>
#include <vector>

namespace shardproof {
namespace {

// P(Binomial(n, 1/2) <= k), the slow way.
double BinomialCdf(int n, int k) {
  double sum = 0, term = std::ldexp(1.0, -n);
  for (int i = 0; i <= k; ++i) {
    sum += term;
    term *= static_cast<double>(n - i) / (i + 1);
  }
  return sum;
}

TEST(MedianInterval, CoversWithTheConfidenceAskedForAndNotMore) {
  for (int n = 6; n <= 1000; n = n < 60 ? n + 1 : n + 97) {
    const OrderInterval i = MedianInterval(n);
    EXPECT_EQ(i.low + i.high, n - 1) << n;
    EXPECT_GE(1 - 2 * BinomialCdf(n, i.low), 0.95) << n;
    // One narrower on each side would have less.
    EXPECT_LT(1 - 2 * BinomialCdf(n, i.low + 1), 0.95) << n;
  }
  // The tables: n = 10 gives x_(2)..x_(9), n = 50 x_(18)..x_(33).
  EXPECT_EQ(MedianInterval(10).low, 1);
  EXPECT_EQ(MedianInterval(50).low, 17);
  EXPECT_EQ(MedianInterval(50).high, 32);
}

TEST(MedianInterval, IsTheWholeRangeOfFewSamples) {
  for (int n = 1; n < 6; ++n) {
    EXPECT_EQ(MedianInterval(n).low, 0);
    EXPECT_EQ(MedianInterval(n).high, n - 1);
  }
}

TEST(Quantile, Interpolates) {
  const std::vector<double> x = {1, 2, 4, 8};
  EXPECT_EQ(Quantile(x, 0), 1);
  EXPECT_EQ(Quantile(x, 1), 8);
  EXPECT_EQ(Quantile(x, 0.5), 3);
  EXPECT_EQ(Quantile({}, 0.5), 0);
}

TEST(Median, OfValuesInAnyOrder) {
  EXPECT_EQ(Median({3, 1, 2}), 2);
  EXPECT_EQ(Median({4, 1, 3, 2}), 2.5);
  EXPECT_EQ(Median({7}), 7);
  EXPECT_EQ(Median({}), 0);
}

}  // namespace
}  // namespace shardproof
