#include "reports/statistics/e_divisive.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <numbers>
#include <random>
#include <vector>

#include "reports/statistics/clopper_pearson.h"

namespace shardproof {
namespace {

class Noise {
 public:
  explicit Noise(uint64_t seed) : engine_(seed) {}
  double Normal() {
    return std::sqrt(-2 * std::log(Uniform())) *
           std::cos(2 * std::numbers::pi * Uniform());
  }

 private:
  double Uniform() {
    return (static_cast<double>(engine_() >> 11) + 0.5) * 0x1p-53;
  }
  std::mt19937_64 engine_;
};

// `count` launches of about `us`, one percent of noise.
void Append(std::vector<double>& series, int count, double us, Noise& noise) {
  for (int i = 0; i < count; ++i) {
    series.push_back(us * std::exp(0.01 * noise.Normal()));
  }
}

std::vector<size_t> Firsts(const std::vector<ChangePoint>& changes) {
  std::vector<size_t> firsts;
  for (const ChangePoint& c : changes) firsts.push_back(c.first);
  return firsts;
}

TEST(EDivisive, StatisticByHand) {
  // Logarithms 0, 2 | 4, 8: between 4, 8, 2, 6 with mean 5, within 2 and 4;
  // E = 10 - 2 - 4 and Q = 2 * 2 / 4 * E. An alpha above 1 takes any division.
  const std::vector<double> times = {1, std::exp(2.0), std::exp(4.0),
                                     std::exp(8.0)};
  const auto changes = EDivisive(times, {.least = 2, .alpha = 2});
  ASSERT_EQ(changes.size(), 1U);
  EXPECT_EQ(changes[0].first, 2U);
  EXPECT_NEAR(changes[0].statistic, 4, 1e-12);
  // Medians 1 and 6.
  EXPECT_NEAR(changes[0].effect, std::expm1(5.0), 1e-9);
}

TEST(EDivisive, PermutationsByHand) {
  // Of the six orders of 0, 0, 1, 1 two have Q = 2 (2 * 2 / 4 * 2), ours too.
  const double e = std::exp(1.0);
  const std::vector<double> times = {1, 1, e, e};
  const auto changes =
      EDivisive(times, {.least = 2, .alpha = 2, .permutations = 9999});
  ASSERT_EQ(changes.size(), 1U);
  EXPECT_NEAR(changes[0].statistic, 2, 1e-12);
  // Five standard deviations; the seed is fixed.
  EXPECT_NEAR(changes[0].p, 1.0 / 3, 5 * std::sqrt(2.0 / 9 / 10000));
}

TEST(EDivisive, FindsAStep) {
  Noise noise(1);
  std::vector<double> series;
  Append(series, 20, 100, noise);
  Append(series, 15, 105, noise);
  const auto changes = EDivisive(series);
  ASSERT_EQ(Firsts(changes), std::vector<size_t>{20});
  EXPECT_NEAR(changes[0].effect, 0.05, 0.005);
  EXPECT_EQ(changes[0].p, 1.0 / 200);
  EXPECT_EQ(EDivisive(series), changes);
}

TEST(EDivisive, FindsTheBeginningAndTheEndOfABump) {
  constexpr int kSeries = 100;
  int more = 0;
  for (int i = 0; i < kSeries; ++i) {
    Noise noise(2000 + static_cast<uint64_t>(i));
    std::vector<double> series;
    Append(series, 25, 100, noise);
    Append(series, 8, 110, noise);
    Append(series, 25, 100, noise);
    const auto changes = EDivisive(series);
    const std::vector<size_t> firsts = Firsts(changes);
    ASSERT_TRUE(std::count(firsts.begin(), firsts.end(), 25U) == 1 &&
                std::count(firsts.begin(), firsts.end(), 33U) == 1)
        << i;
    if (changes.size() > 2) ++more;
    if (changes.size() > 2) continue;
    // Five standard deviations of the difference of two medians.
    const double off =
        5 * 0.01 * std::sqrt(std::numbers::pi / 2 * (1.0 / 8 + 1.0 / 25));
    EXPECT_NEAR(std::log1p(changes[0].effect), std::log(1.1), off);
    EXPECT_NEAR(std::log1p(changes[1].effect), -std::log(1.1), off);
  }
  // Once all changes are found, another one is as rare as in a series without.
  EXPECT_LE(ClopperPearsonLow(more, kSeries, 0.99), 0.05) << more;
}

TEST(EDivisive, TheNileFellIn1899) {
  // Flow at Aswan, 1871 to 1970 (Cobb, The problem of the Nile, Biometrika 65,
  // 1978): published change points are 1898 as the last year before.
  const std::vector<double> nile = {
      1120, 1160, 963,  1210, 1160, 1160, 813,  1230, 1370, 1140, 995,  935,
      1110, 994,  1020, 960,  1180, 799,  958,  1140, 1100, 1210, 1150, 1250,
      1260, 1220, 1030, 1100, 774,  840,  874,  694,  940,  833,  701,  916,
      692,  1020, 1050, 969,  831,  726,  456,  824,  702,  1120, 1100, 832,
      764,  821,  768,  845,  864,  862,  698,  845,  744,  796,  1040, 759,
      781,  865,  845,  944,  984,  897,  822,  1010, 771,  676,  649,  846,
      812,  742,  801,  1040, 860,  874,  848,  890,  744,  749,  838,  1050,
      918,  986,  797,  923,  975,  815,  1020, 906,  901,  1170, 912,  746,
      919,  718,  714,  740};
  ASSERT_EQ(nile.size(), 100U);
  EXPECT_EQ(Firsts(EDivisive(nile)), std::vector<size_t>{1899 - 1871});
}

TEST(EDivisive, NeedsFourPointsOnEachSide) {
  Noise noise(3);
  std::vector<double> series;
  Append(series, 20, 100, noise);
  Append(series, 3, 200, noise);
  // Three are too few for a change between them and what was before, and are
  // no change with one of the others for company.
  for (const ChangePoint& c : EDivisive(series)) {
    EXPECT_LE(c.first, series.size() - 4);
  }
  Append(series, 1, 200, noise);
  const auto changes = EDivisive(series);
  ASSERT_FALSE(changes.empty());
  EXPECT_EQ(changes.back().first, 20U);
  EXPECT_NEAR(changes.back().effect, 1, 0.05);
}

TEST(EDivisive, BothSidesOfADivisionHaveFour) {
  // Two points of 10 among zeros: the best four after t = 8 are 10, 10, 0, 0.
  // Between 5, within 0 and 4 * 10 / 6: E = 10 - 20 / 3, Q = 8 * 4 / 12 * E.
  // The two alone would have 2 * 10 * 8 * 2 / 10 = 32.
  std::vector<double> series(18, 1.0);
  series[8] = series[9] = std::exp(10.0);
  const auto changes = EDivisive(series, {.alpha = 2});
  const auto found =
      std::find_if(changes.begin(), changes.end(),
                   [](const ChangePoint& c) { return c.first == 8; });
  ASSERT_NE(found, changes.end());
  EXPECT_NEAR(found->statistic, 80.0 / 9, 1e-9);
}

TEST(EDivisive, RarelyFindsAChangeWhereThereIsNone) {
  constexpr int kSeries = 300;
  int found = 0;
  for (int i = 0; i < kSeries; ++i) {
    Noise noise(1000 + static_cast<uint64_t>(i));
    std::vector<double> series;
    Append(series, 24, 100, noise);
    if (!EDivisive(series).empty()) ++found;
  }
  RecordProperty("found", found);
  // The permutations make p exact: at most alpha, as far as 300 can tell, and
  // not far below it either.
  EXPECT_LE(ClopperPearsonLow(found, kSeries, 0.99), 0.05) << found;
  EXPECT_GE(ClopperPearsonHigh(found, kSeries, 0.99), 0.04) << found;
}

TEST(EDivisive, LeavesOutWhatIsNoTime) {
  Noise noise(5);
  std::vector<double> series;
  Append(series, 10, 100, noise);
  Append(series, 10, 120, noise);
  const auto clean = EDivisive(series);
  ASSERT_EQ(Firsts(clean), std::vector<size_t>{10});
  series.insert(series.begin() + 3, std::nan(""));
  series.insert(series.begin() + 5, 0);
  series.insert(series.begin() + 7, -1);
  series.push_back(std::numeric_limits<double>::infinity());
  const auto changes = EDivisive(series);
  ASSERT_EQ(Firsts(changes), std::vector<size_t>{13});
  EXPECT_EQ(changes[0].effect, clean[0].effect);
}

TEST(EDivisive, OfLittleOrOfNoSpreadThereIsNone) {
  EXPECT_TRUE(EDivisive({}).empty());
  EXPECT_TRUE(EDivisive(std::vector<double>{1, 1, 1, 9, 9, 9}).empty());
  EXPECT_TRUE(EDivisive(std::vector<double>(50, 7.1)).empty());
  EXPECT_TRUE(EDivisive(std::vector<double>(50, std::nan(""))).empty());
}

TEST(EDivisive, LooksAtTheLastOfVeryMany) {
  std::vector<double> series(kMostChangePointValues + 100, 100.0);
  for (size_t i = 0; i < 50; ++i) series[i] = 200;  // Too long ago.
  for (size_t i = series.size() - 300; i < series.size(); ++i) series[i] = 110;
  const auto changes = EDivisive(series, {.permutations = 39});
  EXPECT_EQ(Firsts(changes), std::vector<size_t>{series.size() - 300});
}

}  // namespace
}  // namespace shardproof
