// The whole rule against launches made up with a known truth: how often it
// cries wolf, and how often it finds 5 percent.
//
// A launch's median is base * exp(noise). Noise is what launches of a shared
// machine show: one percent of a standard normal; in one launch of 20 something
// else runs beside it, and it is slower by an exponential of mean 3 percent; one
// of 50 takes twice as long; and both launches of a pair share a drift of 2
// percent, which pairs cancel.
// Everything is a function of the seeds.
#include <gtest/gtest.h>

#include <cmath>
#include <cstdint>
#include <numbers>
#include <random>
#include <string>
#include <vector>

#include "reports/statistics/clopper_pearson.h"
#include "reports/statistics/verdict.h"

namespace shardproof {
namespace {

constexpr int kCases = 10;
constexpr double kLaunchNoise = 0.01;

// <random>'s engines are the same everywhere; its distributions are not.
class Random {
 public:
  explicit Random(uint64_t seed) : engine_(seed) {}
  double Uniform() {  // In (0, 1).
    return (static_cast<double>(engine_() >> 11) + 0.5) * 0x1p-53;
  }
  double Normal() {
    return std::sqrt(-2 * std::log(Uniform())) *
           std::cos(2 * std::numbers::pi * Uniform());
  }
  double Launch() {
    double noise = kLaunchNoise * Normal();
    if (Uniform() < 0.05) noise -= 0.03 * std::log(Uniform());
    if (Uniform() < 0.02) noise += std::numbers::ln2;
    return noise;
  }

 private:
  std::mt19937_64 engine_;
};

void TakePairs(Random& random, int pairs, double base_us, double slowdown,
               std::vector<double>& base, std::vector<double>& cand) {
  for (int i = 0; i < pairs; ++i) {
    const double drift = 0.02 * random.Normal();
    base.push_back(base_us * std::exp(drift + random.Launch()));
    cand.push_back(base_us * (1 + slowdown) *
                   std::exp(drift + random.Launch()));
  }
}

// One comparison of kCases cases, of which the first is slower.
std::vector<Comparison> Compare(uint64_t seed, double slowdown) {
  Random random(seed);
  const Rules rules;
  std::vector<CaseLaunches> cases(kCases);
  for (int i = 0; i < kCases; ++i) {
    const double by = i == 0 ? slowdown : 0;
    const double base_us = 50.0 * (i + 1);
    CaseLaunches& c = cases[i];
    TakePairs(random, rules.screen_pairs, base_us, by, c.screen_base,
              c.screen_cand);
    if (Suspect(c, rules)) {
      TakePairs(random, rules.fresh_pairs, base_us, by, c.fresh_base,
                c.fresh_cand);
    }
  }
  // What calibrate would have found: no noise that widens the margin.
  return Judge(cases, rules, 0);
}

struct Count {
  int verdicts = 0, regressed = 0, improved = 0, equivalent = 0;
};

void Add(const Comparison& c, Count& count) {
  ++count.verdicts;
  if (c.change == Change::kRegressed) ++count.regressed;
  if (c.change == Change::kImproved) ++count.improved;
  if (c.change == Change::kEquivalent) ++count.equivalent;
}

TEST(VerdictSimulation, SameAgainstSame) {
  Count count;
  for (uint64_t seed = 1; seed <= 400; ++seed) {
    for (const Comparison& c : Compare(seed, 0)) Add(c, count);
  }
  EXPECT_EQ(count.verdicts, 400 * kCases);
  const int alarms = count.regressed + count.improved;
  RecordProperty("false_alarms", alarms);
  RecordProperty("equivalent", count.equivalent);
  EXPECT_LE(ClopperPearsonHigh(alarms, count.verdicts, 0.95), 0.01)
      << alarms << " of " << count.verdicts;
  // And it says something: a gate that never decides would pass the above.
  EXPECT_GT(count.equivalent, count.verdicts * 9 / 10);
}

TEST(VerdictSimulation, FivePercentIsFound) {
  Count slow;
  Count fast;
  for (uint64_t seed = 1001; seed <= 1400; ++seed) {
    Add(Compare(seed, 0.05)[0], slow);
    Add(Compare(seed, -0.05)[0], fast);
  }
  RecordProperty("slow_found", slow.regressed);
  RecordProperty("fast_found", fast.improved);
  EXPECT_GE(slow.regressed, 0.95 * slow.verdicts);
  EXPECT_GE(fast.improved, 0.95 * fast.verdicts);
  EXPECT_EQ(slow.improved + fast.regressed, 0);
}

TEST(VerdictSimulation, TenPercentIsAlwaysFound) {
  Count slow;
  for (uint64_t seed = 2001; seed <= 2100; ++seed) {
    Add(Compare(seed, 0.10)[0], slow);
  }
  EXPECT_EQ(slow.regressed, slow.verdicts);
}

// Launches of two sides that are no pairs and have no common drift.
TEST(VerdictSimulation, UnpairedSameAgainstSame) {
  Count count;
  for (uint64_t seed = 3001; seed <= 3400; ++seed) {
    Random random(seed);
    std::vector<UnpairedLaunches> cases(kCases);
    for (UnpairedLaunches& c : cases) {
      for (int i = 0; i < 5; ++i) {
        c.base.push_back(100 * std::exp(random.Launch()));
        c.cand.push_back(100 * std::exp(random.Launch()));
      }
    }
    for (const Comparison& c : JudgeUnpaired(cases, {}, 0)) Add(c, count);
  }
  const int alarms = count.regressed + count.improved;
  RecordProperty("false_alarms", alarms);
  EXPECT_LE(ClopperPearsonHigh(alarms, count.verdicts, 0.95), 0.01)
      << alarms << " of " << count.verdicts;
}

}  // namespace
}  // namespace shardproof
