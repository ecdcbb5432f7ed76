#include "tools/cli/blocks.h"

#include <gtest/gtest.h>

#include <string>
#include <utility>

namespace shardproof {
namespace {

Record Block(double median, std::vector<double> samples) {
  Record r{.case_name = "collectives/all_reduce", .verdict = Verdict::kPassed};
  r.algbw_gbps = 1 / median;
  r.time_us = Record::Time{.median = median,
                           .p10 = median,
                           .p90 = median,
                           .min = samples.front(),
                           .max = samples.back(),
                           .interval_low = median * 0.99,
                           .interval_high = median * 1.01,
                           .samples = static_cast<int>(samples.size()),
                           .rank_samples_us = {samples, samples}};
  r.time_us->samples_us = std::move(samples);
  return r;
}

TEST(OfBlocks, IsTheMiddleOneWithWhatFollowsFromItsTime) {
  const Record r =
      OfBlocks({Block(50, {49, 51}), Block(10, {9, 11}), Block(11, {10, 12}),
                Block(9, {8, 10}), Block(10.5, {10, 11})});
  EXPECT_EQ(r.time_us->median, 10.5);
  EXPECT_EQ(r.algbw_gbps, 1 / 10.5);
}

TEST(OfBlocks, OfAnEvenNumberIsTheLowerMiddle) {
  EXPECT_EQ(OfBlocks({Block(4, {4, 4}), Block(3, {3, 3})}).time_us->median, 3);
}

TEST(OfBlocks, HasTheSamplesOfAllInTheOrderOfTime) {
  const Record r =
      OfBlocks({Block(50, {49, 51}), Block(10, {9, 11}), Block(12, {11, 13})});
  const Record::Time& t = *r.time_us;
  const std::vector<double> all = {49, 51, 9, 11, 11, 13};
  EXPECT_EQ(t.samples_us, all);
  ASSERT_EQ(t.rank_samples_us.size(), 2U);
  EXPECT_EQ(t.rank_samples_us[1], all);
  EXPECT_EQ(t.samples, 6);
  EXPECT_EQ(t.min, 9);
  EXPECT_EQ(t.max, 51);
  EXPECT_EQ(t.p10, 10);  // Of 9 11 11 13 49 51, at 0.1 * 5.
  EXPECT_EQ(t.p90, 50);
  EXPECT_EQ(t.interval_low, 10);
  EXPECT_EQ(t.interval_high, 50);
}

TEST(OfBlocks, ThinsSamplesEvenly) {
  std::vector<double> many;
  for (int i = 0; i < kKeptSamples; ++i) many.push_back(i);
  const Record r = OfBlocks({Block(1, many), Block(1, many)});
  ASSERT_EQ(r.time_us->samples_us.size(), static_cast<size_t>(kKeptSamples));
  EXPECT_EQ(r.time_us->samples_us[1], 2);
  EXPECT_EQ(r.time_us->samples_us[kKeptSamples / 2], 0);
  EXPECT_EQ(r.time_us->samples, 2 * kKeptSamples);
  EXPECT_EQ(r.time_us->rank_samples_us[0].size(),
            static_cast<size_t>(kKeptRankSamples));
}

TEST(OfBlocks, AWrongBlockIsTheResult) {
  Record wrong = Block(10, {10, 10});
  wrong.verdict = Verdict::kIncorrect;
  wrong.reason = "1 of 4 elements is wrong";
  const Record r = OfBlocks({Block(10, {10, 10}), wrong, Block(9, {9, 9})});
  EXPECT_EQ(r.verdict, Verdict::kIncorrect);
  EXPECT_EQ(r.reason, "1 of 4 elements is wrong");
}

TEST(OfBlocks, ErrorsAreThoseOfTheBlockThatIsVerifiedInFull) {
  Record full = Block(12, {12, 12});
  full.error = Record::Error{.compared = 300};
  Record later = Block(10, {10, 10});
  later.error = Record::Error{.compared = 100};
  const Record r = OfBlocks({full, later, later});
  EXPECT_EQ(r.time_us->median, 10);
  ASSERT_TRUE(r.error.has_value());
  EXPECT_EQ(r.error->compared, 300);
}

TEST(OfBlocks, FlagsAreNamedOnce) {
  Record noisy = Block(10, {10, 10});
  noisy.time_us->flags = {"noisy"};
  const Record r = OfBlocks({noisy, noisy, Block(11, {11, 11})});
  EXPECT_EQ(r.time_us->flags, std::vector<std::string>{"noisy"});
}

TEST(OfBlocks, OneBlockStaysWhatItIs) {
  const Record one = Block(10, {9, 11});
  EXPECT_EQ(OfBlocks({one}), one);
}

}  // namespace
}  // namespace shardproof
