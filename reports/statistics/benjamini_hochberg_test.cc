#include "reports/statistics/benjamini_hochberg.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <vector>

namespace shardproof {
namespace {

TEST(BenjaminiHochberg, FifteenHypothesesOfThePaper) {
  // Section 3.2: rejected are the first four at 5 percent. Adjusted by hand:
  // 15 p_(i) / i, and the least from the right.
  const std::vector<double> p = {0.0001, 0.0004, 0.0019, 0.0095, 0.0201,
                                 0.0278, 0.0298, 0.0344, 0.0459, 0.3240,
                                 0.4262, 0.5719, 0.6528, 0.7590, 1.000};
  const std::vector<double> wanted = {0.0015,
                                      0.003,
                                      0.0095,
                                      0.035625,
                                      0.0603,
                                      0.0298 * 15 / 7,
                                      0.0298 * 15 / 7,
                                      0.0645,
                                      0.0765,
                                      0.486,
                                      0.4262 * 15 / 11,
                                      0.714875,
                                      0.6528 * 15 / 13,
                                      0.759 * 15 / 14,
                                      1};
  const std::vector<double> adjusted = BenjaminiHochberg(p);
  ASSERT_EQ(adjusted.size(), p.size());
  for (size_t i = 0; i < p.size(); ++i) {
    EXPECT_NEAR(adjusted[i], wanted[i], 1e-15) << i;
  }
  EXPECT_EQ(std::count_if(adjusted.begin(), adjusted.end(),
                          [](double x) { return x < 0.05; }),
            4);
}

TEST(BenjaminiHochberg, KeepsTheOrderOfItsInput) {
  const std::vector<double> adjusted =
      BenjaminiHochberg(std::vector<double>{0.04, 0.01, 1, 0.02});
  EXPECT_NEAR(adjusted[0], 0.16 / 3, 1e-15);
  EXPECT_NEAR(adjusted[1], 0.04, 1e-15);
  EXPECT_EQ(adjusted[2], 1);
  EXPECT_NEAR(adjusted[3], 0.04, 1e-15);
}

TEST(BenjaminiHochberg, IsMonotoneAndNeverBelowP) {
  std::vector<double> p;
  for (int i = 0; i < 50; ++i) p.push_back(std::pow((i * 31 % 50) / 50.0, 3));
  const std::vector<double> adjusted = BenjaminiHochberg(p);
  for (size_t i = 0; i < p.size(); ++i) {
    EXPECT_GE(adjusted[i], p[i]);
    EXPECT_LE(adjusted[i], 1);
    for (size_t j = 0; j < p.size(); ++j) {
      EXPECT_TRUE(p[i] >= p[j] || adjusted[i] <= adjusted[j]) << i << j;
    }
  }
}

TEST(BenjaminiHochberg, WhatCouldNotBeTestedCountsAndIsNoFinding) {
  const double nan = std::nan("");
  const std::vector<double> adjusted =
      BenjaminiHochberg(std::vector<double>{nan, 0.01, nan});
  EXPECT_EQ(adjusted[0], 1);
  EXPECT_NEAR(adjusted[1], 0.03, 1e-15);
  EXPECT_EQ(adjusted[2], 1);
  EXPECT_TRUE(BenjaminiHochberg({}).empty());
  EXPECT_EQ(BenjaminiHochberg(std::vector<double>{0.03})[0], 0.03);
  EXPECT_EQ(BenjaminiHochberg(std::vector<double>{-1, 7})[0], 0);
}

}  // namespace
}  // namespace shardproof
