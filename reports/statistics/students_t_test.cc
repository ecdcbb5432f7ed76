#include "reports/statistics/students_t.h"

#include <gtest/gtest.h>

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
}

}  // namespace
}  // namespace shardproof
