#include "reports/statistics/verdict.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <string>
#include <utility>
#include <vector>

namespace shardproof {
namespace {

using Times = std::vector<double>;

// Candidates with d_i = ln(1 + effect) + spread * {1, -1, 0, ...}.
Times Scaled(const Times& base, double effect, double spread) {
  Times cand;
  for (size_t i = 0; i < base.size(); ++i) {
    const double sign = i % 3 == 0 ? 1 : i % 3 == 1 ? -1 : 0;
    cand.push_back(base[i] * (1 + effect) * std::exp(spread * sign));
  }
  return cand;
}

const Times kBase5 = {100, 101, 99, 100, 102};
const Times kBase10 = {100, 101, 99, 100, 102, 98, 100, 101, 99, 100};

CaseLaunches Screened(double effect, double spread) {
  CaseLaunches c{.identity = {.key = "c v thread 4",
                              .case_name = "c",
                              .variant = "v",
                              .backend = "thread",
                              .params = "count=1",
                              .ranks = 4,
                              .repro = "shardproof ab"},
                 .screen_base = kBase5,
                 .screen_cand = Scaled(kBase5, effect, spread),
                 .seconds_per_pair = 3};
  return c;
}

CaseLaunches Measured(double effect, double spread) {
  CaseLaunches c = Screened(effect, spread);
  c.fresh_base = kBase10;
  c.fresh_cand = Scaled(kBase10, effect, spread);
  return c;
}

CaseLaunches Swapped(CaseLaunches c) {
  std::swap(c.screen_base, c.screen_cand);
  std::swap(c.fresh_base, c.fresh_cand);
  return c;
}

Comparison JudgeOne(const CaseLaunches& c, double noise = 0,
                    const Rules& rules = {}) {
  const std::vector<Comparison> all = Judge({&c, 1}, rules, noise);
  EXPECT_EQ(all.size(), 1U);
  EXPECT_FALSE(all[0].reason.empty());
  return all[0];
}

bool Says(const Comparison& c, std::string_view text) {
  return c.reason.find(text) != std::string::npos;
}

TEST(Verdict, MarginIsTheLargestOfThree) {
  EXPECT_EQ(Margin({}, 0, 1000), 0.02);
  EXPECT_EQ(Margin({}, 0.03, 1000), 0.03);
  EXPECT_EQ(Margin({}, 0.03, 5), 0.1);
  EXPECT_EQ(Margin({}, std::nan(""), 1000), 0.02);
  EXPECT_TRUE(std::isnan(Margin({}, 0, 0)));
  EXPECT_TRUE(std::isnan(Margin({}, 0, std::nan(""))));
}

TEST(Verdict, SuspectsAreFoundInBothDirections) {
  EXPECT_TRUE(Suspect(Screened(0.03, 0.01), {}));
  EXPECT_TRUE(Suspect(Swapped(Screened(0.03, 0.01)), {}));
  EXPECT_FALSE(Suspect(Screened(0.009, 0.001), {}));  // Clear, but too small.
  EXPECT_TRUE(Suspect(Screened(0.011, 0.001), {}));
  EXPECT_FALSE(Suspect(Screened(0.025, 0.05), {}));  // Large, but not clear.
  EXPECT_TRUE(Suspect(Screened(0.035, 0.05), {}));   // Too large to pass by.
  EXPECT_TRUE(Suspect(Swapped(Screened(0.035, 0.05)), {}));
  CaseLaunches few = Screened(0.03, 0.01);
  few.screen_base.pop_back();
  few.screen_cand.pop_back();
  EXPECT_FALSE(Suspect(few, {}));
  CaseLaunches bad = Screened(0.03, 0.01);
  bad.screen_cand[2] = std::nan("");
  EXPECT_FALSE(Suspect(bad, {}));
  EXPECT_FALSE(Suspect({}, {}));
}

TEST(Verdict, RegressedAndItsMirror) {
  const Comparison slow = JudgeOne(Measured(0.05, 0.01));
  EXPECT_EQ(slow.change, Change::kRegressed) << slow.reason;
  EXPECT_TRUE(slow.suspect);
  EXPECT_EQ(slow.screened_pairs, 5);
  EXPECT_EQ(slow.pairs, 10);
  // Of 3 below, 3 at and 4 above ln(1.05), 1, 3 and 2 are kept.
  EXPECT_NEAR(slow.effect, 1.05 * std::exp(0.01 / 6) - 1, 1e-12);
  EXPECT_LT(slow.interval_low, slow.effect);
  EXPECT_GT(slow.interval_high, slow.effect);
  EXPECT_NEAR(slow.hodges_lehmann, 0.05, 0.002);
  EXPECT_EQ(slow.sign_flip_p, 1.0 / 1024);
  EXPECT_LT(slow.adjusted_p, 1e-3);
  EXPECT_EQ(slow.adjusted_p, slow.p);  // Of one case.
  EXPECT_EQ(slow.margin, 0.02);
  EXPECT_EQ(slow.base_us, 100);
  EXPECT_EQ(slow.base_launches.size(), 15U);
  EXPECT_EQ(slow.base_launches[4], 102);
  EXPECT_EQ(slow.cand_launches.size(), 15U);
  EXPECT_EQ(slow.key, "c v thread 4");
  EXPECT_EQ(slow.params, "count=1");
  EXPECT_EQ(slow.ranks, 4);
  EXPECT_EQ(slow.repro, "shardproof ab");
  EXPECT_FALSE(slow.more_pairs.has_value());

  const Comparison fast = JudgeOne(Swapped(Measured(0.05, 0.01)));
  EXPECT_EQ(fast.change, Change::kImproved) << fast.reason;
  EXPECT_NEAR(std::log1p(fast.effect), -std::log1p(slow.effect), 1e-12);
  EXPECT_NEAR(fast.p, slow.p, 1e-12);
  EXPECT_EQ(fast.sign_flip_p, slow.sign_flip_p);
  EXPECT_TRUE(Says(slow, "slower"));
  EXPECT_TRUE(Says(fast, "faster"));
}

// What else ran on the machine hit one launch in the screening, and two after it.
TEST(Verdict, LaunchesThatAreFarOffHideNothing) {
  for (const double far : {3.0, 1.0 / 3}) {
    CaseLaunches c = Measured(0.05, 0.01);
    c.screen_base[2] *= far;
    c.fresh_base[1] *= far;
    c.fresh_cand[6] *= 2;
    const Comparison slow = JudgeOne(c);
    EXPECT_EQ(slow.change, Change::kRegressed) << slow.reason;
    EXPECT_NEAR(slow.effect, 0.05, 0.01);
    CaseLaunches same = Measured(0, 0.01);
    same.screen_base[2] *= far;
    same.fresh_base[1] *= far;
    EXPECT_EQ(JudgeOne(same).change, Change::kEquivalent);
  }
}

TEST(Verdict, WithinTheMarginIsNotRegressed) {
  EXPECT_EQ(JudgeOne(Measured(0.03, 0.002)).change, Change::kRegressed);
  // The noise of the machine widens the margin; what is left is within 5.
  const Comparison same = JudgeOne(Measured(0.03, 0.002), 0.035);
  EXPECT_EQ(same.change, Change::kEquivalent) << same.reason;
  EXPECT_EQ(same.margin, 0.035);
  EXPECT_TRUE(same.suspect);
}

TEST(Verdict, EquivalentWithoutASecondStage) {
  const Comparison c = JudgeOne(Screened(0.002, 0.01));
  EXPECT_EQ(c.change, Change::kEquivalent) << c.reason;
  EXPECT_FALSE(c.suspect);
  EXPECT_EQ(c.pairs, 5);
  EXPECT_EQ(c.adjusted_p, 1);  // Did not get to the second stage.
  EXPECT_LT(c.p, 1);
}

TEST(Verdict, OnlyFreshPairsDecide) {
  // Suspect by 8 percent, and fresh pairs that know nothing of it.
  CaseLaunches c = Measured(0.08, 0.01);
  c.fresh_cand = Scaled(c.fresh_base, 0.001, 0.01);
  const Comparison same = JudgeOne(c);
  EXPECT_EQ(same.change, Change::kEquivalent) << same.reason;
  EXPECT_NEAR(same.effect, 0.002, 0.001);
}

TEST(Verdict, ASuspectThatTurnsRoundIsNoFinding) {
  CaseLaunches c = Measured(0.06, 0.01);
  c.fresh_cand = Scaled(c.fresh_base, -0.06, 0.01);
  const Comparison turned = JudgeOne(c);
  EXPECT_EQ(turned.change, Change::kInconclusive) << turned.reason;
  EXPECT_EQ(turned.adjusted_p, 1);
  EXPECT_LT(turned.p, 0.001);
}

TEST(Verdict, SuspectWithoutFreshPairsIsInconclusive) {
  const Comparison none = JudgeOne(Screened(0.05, 0.01));
  EXPECT_EQ(none.change, Change::kInconclusive) << none.reason;
  EXPECT_EQ(none.more_pairs, 10);
  EXPECT_EQ(none.more_seconds, 30);
  EXPECT_EQ(none.adjusted_p, 1);
  EXPECT_TRUE(Says(none, "10 more pairs (about 30 s)")) << none.reason;
  // One less than there should be is not enough either.
  CaseLaunches c = Measured(0.05, 0.01);
  c.fresh_base.pop_back();
  c.fresh_cand.pop_back();
  const Comparison nine = JudgeOne(c);
  EXPECT_EQ(nine.change, Change::kInconclusive);
  EXPECT_EQ(nine.more_pairs, 1);
  EXPECT_TRUE(Says(nine, "1 more pair (")) << nine.reason;
}

TEST(Verdict, TooFewScreeningPairs) {
  CaseLaunches c = Screened(0.2, 0.01);
  for (int n = 4; n > 0; --n) {
    c.screen_base.pop_back();
    c.screen_cand.pop_back();
    const Comparison few = JudgeOne(c);
    EXPECT_EQ(few.change, Change::kInconclusive) << n;
    EXPECT_EQ(few.more_pairs, 5 - n) << n;
  }
}

TEST(Verdict, MorePairsWouldHaveDecided) {
  // Noisy: suspect, but neither slower nor the same can be said of 10 pairs.
  CaseLaunches c = Measured(0.05, 0.01);
  c.fresh_cand = Scaled(c.fresh_base, 0.03, 0.12);
  const Comparison before = JudgeOne(c);
  ASSERT_EQ(before.change, Change::kInconclusive) << before.reason;
  ASSERT_TRUE(before.more_pairs.has_value()) << before.reason;
  EXPECT_EQ(before.more_seconds, 3.0 * *before.more_pairs);
  EXPECT_GE(*before.more_pairs, 10);
  // That many more with the same mean and spread, and it is decided; ten per
  // cent fewer, and it is not.
  const auto with = [&](int pairs) {
    // Of ln(1.03) + 0.12 {-1 -1 -1 0 0 0 1 1 1 1}: 1, 3 and 2 are kept, and
    // the spread is that of all, since the ends are no further off.
    const double mean = std::log(1.03) + 0.12 / 6;
    const double sd = 0.12 * std::sqrt((7 - 0.1) / 9);
    CaseLaunches more = c;
    more.fresh_base.clear();
    more.fresh_cand.clear();
    for (int i = 0; i < pairs; ++i) {
      // An even number: +-step around the mean has the same mean and spread.
      const double step = sd * std::sqrt((pairs - 1.0) / pairs);
      more.fresh_base.push_back(100);
      more.fresh_cand.push_back(100 *
                                std::exp(mean + (i % 2 == 0 ? step : -step)));
    }
    return JudgeOne(more).change;
  };
  const int needed = 10 + *before.more_pairs;
  EXPECT_NE(with(needed + needed % 2), Change::kInconclusive);
  EXPECT_EQ(with(needed * 9 / 20 * 2), Change::kInconclusive);
}

TEST(Verdict, PairsForEquivalenceByHand) {
  // Mean 0 and standard deviation 0.06, of n pairs h kept: quantile(0.95) times
  // 0.06 sqrt((n - 1) / (h (h - 1))) is 1.943 * 0.0293 = 0.0569 for 11 and 7,
  // 1.895 * 0.0266 = 0.0504 for 12 and 8, and 1.860 * 0.0245 = 0.0456 for 13
  // and 9; ln(1.05) is 0.0488. For 9 and 7 it is 1.943 * 0.0262 = 0.0509.
  CaseLaunches c;
  c.screen_base = Times(5, 100);
  for (const double d : {0.06, -0.06, 0.06, -0.06, 0.0}) {
    c.screen_cand.push_back(100 * std::exp(d));
  }
  const Comparison noisy = JudgeOne(c);
  EXPECT_EQ(noisy.change, Change::kInconclusive) << noisy.reason;
  EXPECT_EQ(noisy.more_pairs, 8) << noisy.reason;
  EXPECT_FALSE(noisy.more_seconds.has_value());  // Not known.
}

TEST(Verdict, SaysWhenNoNumberWouldDecide) {
  // 6 percent: above equivalence, and below the margin of a noisy machine.
  const Comparison c = JudgeOne(Measured(0.06, 0.01), 0.08);
  EXPECT_EQ(c.change, Change::kInconclusive) << c.reason;
  EXPECT_FALSE(c.more_pairs.has_value());
  EXPECT_FALSE(c.more_seconds.has_value());
  EXPECT_TRUE(Says(c, "no 1000 pairs would decide")) << c.reason;
}

TEST(Verdict, AScreenedCaseMayNeedBothStages) {
  // 2.5 percent and a wide spread: neither suspect nor the same.
  const Comparison c = JudgeOne(Screened(0.025, 0.12));
  ASSERT_EQ(c.change, Change::kInconclusive) << c.reason;
  EXPECT_FALSE(c.suspect);
  ASSERT_TRUE(c.more_pairs.has_value());
  EXPECT_GT(*c.more_pairs, 10);
}

TEST(Verdict, AllScreenedCasesCountInTheAdjustment) {
  std::vector<CaseLaunches> cases = {Measured(0.035, 0.03)};
  const double alone = Judge(cases, {}, 0)[0].adjusted_p;
  ASSERT_LT(alone, 0.05);
  // Nine that are the same, and one that is not measured at all.
  for (int i = 0; i < 9; ++i) cases.push_back(Screened(0.001, 0.01));
  cases.emplace_back().invalid = "throttled";
  const std::vector<Comparison> all = Judge(cases, {}, 0);
  EXPECT_NEAR(all[0].adjusted_p, 10 * alone, 1e-12);
  EXPECT_EQ(all[1].change, Change::kEquivalent);
  EXPECT_EQ(all[10].change, Change::kInvalid);
  EXPECT_EQ(all[10].reason, "throttled");
  EXPECT_EQ(all[10].adjusted_p, 1);
}

TEST(Verdict, InvalidWithTheReason) {
  const auto reason = [](auto change) {
    CaseLaunches c = Measured(0.05, 0.01);
    change(c);
    const Comparison bad = JudgeOne(c);
    EXPECT_EQ(bad.change, Change::kInvalid) << bad.reason;
    EXPECT_EQ(bad.key, "c v thread 4");
    return bad.reason;
  };
  EXPECT_EQ(reason([](CaseLaunches& c) { c.invalid = "throttled"; }),
            "throttled");
  for (const double t :
       {0.0, -1.0, std::nan(""), std::numeric_limits<double>::infinity()}) {
    const std::string said =
        reason([&](CaseLaunches& c) { c.fresh_cand[3] = t; });
    EXPECT_NE(said.find("launch 4 of the candidate"), std::string::npos);
    reason([&](CaseLaunches& c) { c.screen_base[0] = t; });
  }
  EXPECT_NE(reason([](CaseLaunches& c) {
              c.screen_base.pop_back();
            }).find("4 launches of the base and 5"),
            std::string::npos);
  reason([](CaseLaunches& c) { c.fresh_cand.clear(); });
  reason([](CaseLaunches& c) {
    c.screen_base.clear();
    c.screen_cand.clear();
  });
  EXPECT_TRUE(Judge({}, {}, 0).empty());
}

TEST(Verdict, WithoutSpreadTheEffectDecides) {
  const auto of = [](double effect) {
    CaseLaunches c;
    c.screen_base = Times(5, 100);
    c.screen_cand = Times(5, 100 * (1 + effect));
    c.fresh_base = Times(10, 100);
    c.fresh_cand = Times(10, 100 * (1 + effect));
    return JudgeOne(c);
  };
  EXPECT_EQ(of(0).change, Change::kEquivalent);
  EXPECT_EQ(of(0.015).change, Change::kEquivalent);
  EXPECT_EQ(of(0.03).change, Change::kRegressed);
  EXPECT_EQ(of(-0.03).change, Change::kImproved);
}

UnpairedLaunches Unpaired(size_t base, size_t cand, double effect) {
  UnpairedLaunches u{.identity = {.key = "k"}, .seconds_per_launch = 2};
  for (size_t i = 0; i < base; ++i) u.base.push_back(kBase10[i]);
  for (size_t i = 0; i < cand; ++i) {
    u.cand.push_back(kBase10[9 - i] * (1 + effect));
  }
  return u;
}

Comparison JudgeOne(const UnpairedLaunches& u) {
  const std::vector<Comparison> all = JudgeUnpaired({&u, 1}, {}, 0);
  EXPECT_EQ(all.size(), 1U);
  EXPECT_FALSE(all[0].reason.empty());
  return all[0];
}

TEST(Verdict, UnpairedByWelch) {
  const Comparison slow = JudgeOne(Unpaired(6, 5, 0.08));
  EXPECT_EQ(slow.change, Change::kRegressed) << slow.reason;
  EXPECT_NEAR(slow.adjusted_p, 2 * slow.p, 1e-15);
  EXPECT_EQ(slow.base_launches.size(), 6U);
  EXPECT_EQ(slow.cand_launches.size(), 5U);
  EXPECT_EQ(slow.pairs, 0);
  EXPECT_NEAR(slow.hodges_lehmann, 0.08, 0.01);
  EXPECT_EQ(JudgeOne(Unpaired(6, 5, -0.08)).change, Change::kImproved);
  EXPECT_EQ(JudgeOne(Unpaired(6, 5, 0)).change, Change::kEquivalent);
  const Comparison between = JudgeOne(Unpaired(6, 5, 0.045));
  EXPECT_NE(between.change, Change::kEquivalent) << between.reason;
}

TEST(Verdict, UnpairedLaunchesThatAreFarOffHideNothing) {
  UnpairedLaunches u = Unpaired(8, 8, 0.08);
  u.base[3] *= 2;
  u.cand[5] *= 3;
  const Comparison slow = JudgeOne(u);
  EXPECT_EQ(slow.change, Change::kRegressed) << slow.reason;
  EXPECT_NEAR(slow.effect, 0.08, 0.015);
}

TEST(Verdict, UnpairedNeedsThreeLaunchesOnEachSide) {
  for (const auto& [base, cand] :
       {std::pair(1, 1), {2, 2}, {1, 10}, {10, 1}, {2, 9}, {9, 2}}) {
    const Comparison few = JudgeOne(Unpaired(base, cand, 1.0));
    EXPECT_EQ(few.change, Change::kInconclusive) << base << " " << cand;
    const int more = 3 - std::min(base, cand);
    EXPECT_EQ(few.more_pairs, more);
    EXPECT_EQ(few.more_seconds, 4.0 * more);
    EXPECT_TRUE(Says(few, "at least 3 of each")) << few.reason;
    EXPECT_EQ(few.adjusted_p, 1);
  }
  EXPECT_EQ(JudgeOne(Unpaired(3, 3, 1.0)).change, Change::kRegressed);
  // Not even where the rules ask for less.
  const UnpairedLaunches one = Unpaired(1, 1, 1.0);
  EXPECT_EQ(JudgeUnpaired({&one, 1}, {.least_unpaired = 1}, 0)[0].change,
            Change::kInconclusive);
}

TEST(Verdict, UnpairedInvalid) {
  UnpairedLaunches u = Unpaired(4, 4, 0.1);
  u.cand[1] = 0;
  EXPECT_EQ(JudgeOne(u).change, Change::kInvalid);
  u = Unpaired(0, 4, 0.1);
  EXPECT_TRUE(Says(JudgeOne(u), "no launch of the base"));
  u = Unpaired(4, 4, 0.1);
  u.invalid = "another machine";
  EXPECT_EQ(JudgeOne(u).reason, "another machine");
}

}  // namespace
}  // namespace shardproof
