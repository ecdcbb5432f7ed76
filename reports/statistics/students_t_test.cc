#include "reports/statistics/students_t.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

namespace shardproof {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();

// Student's own data: hours of sleep gained with two drugs, ten patients. The
// expected values are those in the documentation of R's t.test and `sleep`.
const std::vector<double> kFirst = {0.7, -1.6, -0.2, -1.2, -0.1,
                                    3.4, 3.7,  0.8,  0.0,  2.0};
const std::vector<double> kSecond = {1.9, 0.8, 1.1, 0.1, -0.1,
                                     4.4, 5.5, 1.6, 4.6, 3.4};

TEST(StudentsT, PairsOfStudentsSleepData) {
  std::vector<double> d;
  for (size_t i = 0; i < kFirst.size(); ++i) {
    d.push_back(kSecond[i] - kFirst[i]);
  }
  const TTest test = OneSampleT(d);
  EXPECT_NEAR(test.mean, 1.58, 1e-12);
  EXPECT_NEAR(test.t, 4.0621, 5e-5);
  EXPECT_EQ(test.degrees, 9);
  EXPECT_NEAR(test.p_two_sided, 0.002833, 5e-7);
  EXPECT_NEAR(test.p_greater, 0.002833 / 2, 5e-7);
  EXPECT_NEAR(test.p_less, 1 - 0.002833 / 2, 5e-7);
  const ConfidenceInterval interval = TInterval(test, 0.95);
  EXPECT_NEAR(interval.low, 0.7001142, 5e-8);
  EXPECT_NEAR(interval.high, 2.4598858, 5e-8);
}

TEST(StudentsT, WelchOfStudentsSleepData) {
  const TTest test = WelchT(kFirst, kSecond);
  EXPECT_NEAR(test.t, 1.8608, 5e-5);
  EXPECT_NEAR(test.degrees, 17.776, 5e-4);
  EXPECT_NEAR(test.p_two_sided, 0.07939, 5e-6);
  EXPECT_NEAR(test.p_greater, 0.07939 / 2, 5e-6);
  const ConfidenceInterval interval = TInterval(test, 0.95);
  EXPECT_NEAR(interval.low, -0.2054832, 5e-8);
  EXPECT_NEAR(interval.high, 3.3654832, 5e-8);
  const TTest mirror = WelchT(kSecond, kFirst);
  EXPECT_EQ(mirror.t, -test.t);
  EXPECT_NEAR(mirror.p_less, test.p_greater, 1e-15);
}

// Differences in order: 0 0.8 | 1 1.2 1.3 1.3 1.4 1.8 | 2.4 4.6, a fifth cut at
// each end. The mean of six is 8 / 6. With 1 1 1 and 1.8 1.8 1.8 in place of the
// ends the mean is 1.36 and the sum of squares 3 0.36^2 + 0.16^2 + 2 0.06^2 +
// 0.04^2 + 3 0.44^2 = 1.004; divided by 6 * 5 it is the variance.
TEST(StudentsT, TrimmedPairsByHand) {
  std::vector<double> d;
  for (size_t i = 0; i < kFirst.size(); ++i) {
    d.push_back(kSecond[i] - kFirst[i]);
  }
  const TTest test = OneSampleT(d, 0.2);
  EXPECT_NEAR(test.mean, 8.0 / 6, 1e-12);
  EXPECT_NEAR(test.standard_error, std::sqrt(1.004 / 30), 1e-12);
  EXPECT_EQ(test.degrees, 5);
  EXPECT_NEAR(test.t, 7.2884, 5e-5);
  EXPECT_NEAR(test.p_greater, 3.8043e-4, 5e-9);
  // How far off the ends are changes nothing, as long as they are the ends.
  std::vector<double> far = d;
  *std::ranges::max_element(far) = 1000;
  *std::ranges::min_element(far) = -50;
  EXPECT_EQ(OneSampleT(far, 0.2).t, test.t);
  EXPECT_LT(OneSampleT(far).t, 1.1);
}

// Yuen's test as scipy 1.17 has it: ttest_ind(b, a, equal_var=False, trim=0.2).
TEST(StudentsT, TrimmedWelchAgreesWithScipy) {
  const TTest test = WelchT(kFirst, kSecond, 0.2);
  EXPECT_NEAR(test.t, 1.6167773658133768, 1e-12);
  EXPECT_NEAR(test.degrees, 8.264708513637695, 1e-12);
  EXPECT_NEAR(test.p_two_sided, 0.14337828852444037, 1e-12);
  const ConfidenceInterval interval = TInterval(test, 0.95);
  EXPECT_NEAR(interval.low, -0.6973066261155885, 1e-9);
  EXPECT_NEAR(interval.high, 4.030639959448923, 1e-9);
  // Of another size on each side, one of which loses less.
  const std::vector<double> seven(kSecond.begin(), kSecond.begin() + 7);
  const TTest uneven = WelchT(kFirst, seven, 0.2);
  EXPECT_NEAR(uneven.t, 0.9778335615937294, 1e-12);
  EXPECT_NEAR(uneven.degrees, 6.144763690301894, 1e-12);
}

TEST(StudentsT, TrimsWholeValuesOnly) {
  EXPECT_EQ(KeptOf(4, 0.2), 4);
  EXPECT_EQ(KeptOf(5, 0.2), 3);
  EXPECT_EQ(KeptOf(9, 0.2), 7);
  EXPECT_EQ(KeptOf(10, 0.2), 6);
  EXPECT_EQ(KeptOf(10, 0), 10);
  const std::vector<double> four = {1, 2, 4, 9};
  EXPECT_EQ(OneSampleT(four, 0.2).t, OneSampleT(four).t);
}

// Three ticks of a coarse clock and two values beside them.
TEST(StudentsT, EqualValuesInTheMiddleAreNoCertainty) {
  const std::vector<double> ticks = {-3, 1, 1, 1, 4};
  const TTest test = OneSampleT(ticks, 0.2);
  EXPECT_EQ(test.t, OneSampleT(ticks).t);
  EXPECT_GT(test.p_greater, 0.1);
}

TEST(StudentsT, QuantilesOfTheTables) {
  EXPECT_NEAR(TQuantile(1, 0.975), 12.706, 5e-4);
  EXPECT_NEAR(TQuantile(4, 0.90), 1.533, 5e-4);
  EXPECT_NEAR(TQuantile(4, 0.95), 2.132, 5e-4);
  EXPECT_NEAR(TQuantile(9, 0.975), 2.262, 5e-4);
  EXPECT_NEAR(TQuantile(29, 0.995), 2.756, 5e-4);
  EXPECT_NEAR(TQuantile(9, 0.5), 0, 1e-12);
}

void ExpectNothingKnown(const TTest& test) {
  EXPECT_EQ(test.degrees, 0);
  EXPECT_EQ(test.p_greater, 1);
  EXPECT_EQ(test.p_less, 1);
  EXPECT_EQ(test.p_two_sided, 1);
  EXPECT_EQ(TInterval(test, 0.95).low, -kInfinity);
  EXPECT_EQ(TInterval(test, 0.95).high, kInfinity);
}

TEST(StudentsT, KnowsNothingOfTooLittle) {
  ExpectNothingKnown(OneSampleT({}));
  EXPECT_TRUE(std::isnan(OneSampleT({}).mean));
  const std::vector<double> one = {3};
  ExpectNothingKnown(OneSampleT(one));
  EXPECT_EQ(OneSampleT(one).mean, 3);
  ExpectNothingKnown(WelchT(one, kSecond));
  ExpectNothingKnown(WelchT(kFirst, one));
  ExpectNothingKnown(WelchT({}, {}));
}

TEST(StudentsT, KnowsNothingOfWhatIsNotFinite) {
  for (const double bad : {std::nan(""), kInfinity, -kInfinity, 1e308}) {
    // 1e308 is finite, and its square is not.
    const std::vector<double> values = {1, 2, bad, 4};
    ExpectNothingKnown(OneSampleT(values));
    ExpectNothingKnown(WelchT(values, kSecond));
    ExpectNothingKnown(WelchT(kFirst, values));
  }
}

TEST(StudentsT, WithoutSpreadTheMeanIsCertain) {
  // 0.1 is not a sum of powers of two: its mean rounds.
  const std::vector<double> same(3, 0.1);
  const TTest above = OneSampleT(same);
  EXPECT_EQ(above.t, kInfinity);
  EXPECT_EQ(above.p_greater, 0);
  EXPECT_EQ(above.p_less, 1);
  EXPECT_EQ(TInterval(above, 0.95).low, 0.1);
  EXPECT_EQ(TInterval(above, 0.95).high, 0.1);
  const TTest zero = OneSampleT(std::vector<double>(3, 0.0));
  EXPECT_EQ(zero.t, 0);
  EXPECT_EQ(zero.p_greater, 0.5);
  EXPECT_EQ(zero.p_two_sided, 1);
  EXPECT_EQ(WelchT(same, same).p_greater, 0.5);
  const TTest below = WelchT(same, std::vector<double>(2, 0.05));
  EXPECT_EQ(below.p_less, 0);
  EXPECT_EQ(below.p_two_sided, 0);
  EXPECT_EQ(OneSampleT(std::vector<double>(5, 0.1), 0.2).p_greater, 0);
}

}  // namespace
}  // namespace shardproof
