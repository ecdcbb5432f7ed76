// The comparison itself, and with it the mistakes that it must not make.

#include "reference/compare.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "reference/random.h"

namespace shardproof {
namespace {

using V = std::vector<double>;

std::vector<Bounded> Expect(const V& y, double worst = 0, double likely = -1) {
  std::vector<Bounded> e;
  for (double v : y) e.push_back({v, worst, likely < 0 ? worst : likely});
  return e;
}

std::vector<char> Store(DType dtype, const V& x) {
  std::vector<char> s(x.size() * 8);
  FromDouble(dtype, x.data(), static_cast<int64_t>(x.size()), s.data());
  return s;
}

ComparisonOptions Options(DType dtype, int64_t n, bool exact) {
  ComparisonOptions o;
  o.dtype = dtype;
  o.shape = Shape{n};
  o.exact = exact;
  return o;
}

Comparison Judged(const ComparisonOptions& o, const V& actual,
                  const std::vector<Bounded>& expected) {
  return Compare(o, Store(o.dtype, actual).data(), expected);
}

constexpr double kNan = std::numeric_limits<double>::quiet_NaN();

TEST(Compare, ExactTierIsBitForBitInEveryType) {
  for (DType d : kAllDTypes) {
    const V y = {1, 2, 3, 4, 5, 6, 7};
    EXPECT_TRUE(Judged(Options(d, 7, true), y, Expect(y)).passed()) << Name(d);
    V wrong = y;
    wrong[6] = IsFloat(d) ? Round(d, 6) : 8;
    const Comparison c = Judged(Options(d, 7, true), wrong, Expect(y));
    EXPECT_EQ(c.outcome, Outcome::kIncorrect) << Name(d);
    EXPECT_EQ(c.incorrect, 1);
    ASSERT_EQ(c.mismatches.size(), 1u);
    EXPECT_EQ(c.mismatches[0].index, 6);
    EXPECT_EQ(c.mismatches[0].expected, 7);
  }
}

TEST(Compare, ExactTierSeesTheLastBit) {
  const V y = {1.0, 2.0};
  const Comparison c =
      Judged(Options(DType::kF64, 2, true), {1.0, 2 + 0x1p-51}, Expect(y));
  EXPECT_EQ(c.outcome, Outcome::kIncorrect);
  EXPECT_EQ(c.max_ulp, 1);
}

// Mistake: `e > bound` lets NaN pass.
TEST(Compare, NanFailsInBothTiers) {
  for (bool exact : {true, false}) {
    for (double bad : {kNan, HUGE_VAL, -HUGE_VAL}) {
      const Comparison c = Judged(Options(DType::kF32, 3, exact), {1, bad, 3},
                                  Expect({1, 2, 3}, 1e30));
      EXPECT_EQ(c.outcome, Outcome::kIncorrect);
      EXPECT_EQ(c.incorrect, 1);
      EXPECT_EQ(c.worst_ratio, HUGE_VAL);
    }
    // And a NaN that must be there but is not.
    EXPECT_EQ(
        Judged(Options(DType::kF32, 2, exact), {1, 0}, Expect({1, kNan}, 1))
            .outcome,
        Outcome::kIncorrect);
    EXPECT_TRUE(
        Judged(Options(DType::kF32, 2, exact), {1, kNan}, Expect({1, kNan}, 1))
            .passed());
    EXPECT_TRUE(Judged(Options(DType::kF32, 2, exact), {1, HUGE_VAL},
                       Expect({1, HUGE_VAL}, 1))
                    .passed());
    EXPECT_FALSE(Judged(Options(DType::kF32, 2, exact), {1, -HUGE_VAL},
                        Expect({1, HUGE_VAL}, 1))
                     .passed());
  }
  // A bound that is NaN or an expectation without a bound is no licence.
  EXPECT_EQ(
      Judged(Options(DType::kF32, 1, false), {1}, {{2, kNan, kNan}}).outcome,
      Outcome::kIncorrect);
}

TEST(Compare, ABoundThatIsNanIsIncorrectNotSuspect) {
  ComparisonOptions o = Options(DType::kF32, 1, false);
  o.check_gain = false;
  EXPECT_EQ(Judged(o, {1}, {{2, kNan, kNan}}).outcome, Outcome::kIncorrect);
}

// The gain of values whose squares overflow is NaN, and none that can be judged.
TEST(Compare, AGainThatIsNanFails) {
  const Comparison c = Judged(Options(DType::kF64, 2, false), {1.5e200, 1e200},
                              Expect({1e200, 1e200}, 1e200));
  EXPECT_TRUE(std::isnan(c.gain));
  EXPECT_EQ(c.outcome, Outcome::kIncorrect);
}

// Mistake: failing only when the absolute and the relative error both exceed.
TEST(Compare, OneBoundDecidesForSmallAndLargeValues) {
  const V y = {1e-6, 1e6};
  EXPECT_FALSE(Judged(Options(DType::kF64, 2, false), {2e-6, 1e6},
                      {{1e-6, 1e-9, 1e-9}, {1e6, 1, 1}})
                   .passed());
  EXPECT_FALSE(Judged(Options(DType::kF64, 2, false), {1e-6, 1e6 + 2},
                      {{1e-6, 1e-9, 1e-9}, {1e6, 1, 1}})
                   .passed());
  EXPECT_TRUE(Judged(Options(DType::kF64, 2, false), y,
                     {{1e-6, 1e-9, 1e-9}, {1e6, 1, 1}})
                  .passed());
}

// Mistake: integer abs() on floats turns 0.75 into 0.
TEST(Compare, FractionsOfOneAreErrors) {
  const Comparison c =
      Judged(Options(DType::kF32, 1, false), {0.75}, Expect({0}, 0.5));
  EXPECT_EQ(c.outcome, Outcome::kIncorrect);
  EXPECT_EQ(c.max_abs, 0.75);
  EXPECT_EQ(Judged(Options(DType::kF32, 1, true), {0.75}, Expect({0})).max_abs,
            0.75);
}

// Mistake: only the largest element is inspected.
TEST(Compare, TheSmallestElementCounts) {
  V y(1000, 1e4);
  y[517] = 1e-3;
  V wrong = y;
  wrong[517] = 2e-3;
  std::vector<Bounded> e;
  for (double v : y) e.push_back({v, 1e-3 * v, 1e-3 * v});
  const Comparison c = Judged(Options(DType::kF64, 1000, false), wrong, e);
  EXPECT_EQ(c.outcome, Outcome::kIncorrect);
  ASSERT_EQ(c.incorrect, 1);
  EXPECT_EQ(c.mismatches[0].index, 517);
}

// Mistake: errors are counted and never reported; more of them than are listed.
TEST(Compare, EveryErrorIsCountedAndReported) {
  const V y(100, 1.0);
  const Comparison c =
      Judged(Options(DType::kF32, 100, true), V(100, 3.0), Expect(y));
  EXPECT_EQ(c.incorrect, 100);
  EXPECT_EQ(c.mismatches.size(), 8u);
  EXPECT_NE(c.reason.find("100 of 100"), std::string::npos) << c.reason;
  EXPECT_FALSE(c.passed());
}

// Mistake: nothing is compared, and that is a pass.
TEST(Compare, NothingComparedIsNoPass) {
  Comparator none(Options(DType::kF32, 10, true));
  EXPECT_EQ(none.Finish().outcome, Outcome::kIncorrect);
  EXPECT_TRUE(Judged(Options(DType::kF32, 0, true), {}, {}).passed());
}

// Mistake: the comparison's result is discarded. (Comparison is also [[nodiscard]].)
TEST(CompareDeathTest, AComparatorMustBeFinished) {
  EXPECT_DEATH(
      {
        Comparator c(Options(DType::kF32, 1, true));
        const float x = 1;
        c.Add(0, &x, Expect({2}));
      },
      "destroyed before Finish");
  Comparator cancelled(Options(DType::kF32, 1, true));
  const float x = 1;
  cancelled.Add(0, &x, Expect({2}));
  cancelled.Cancel();
}

TEST(Compare, ThreeOutcomes) {
  const std::vector<Bounded> e = {{1, 0.5, 0.1}};
  ComparisonOptions o = Options(DType::kF64, 1, false);
  o.check_gain = false;
  EXPECT_EQ(Judged(o, {1.0625}, e).outcome, Outcome::kPassed);
  const Comparison suspect = Judged(o, {1.25}, e);
  EXPECT_EQ(suspect.outcome, Outcome::kSuspect);
  EXPECT_EQ(suspect.suspect, 1);
  EXPECT_NEAR(suspect.worst_ratio, 2.5, 1e-12);
  EXPECT_FALSE(suspect.reason.empty());
  EXPECT_EQ(Judged(o, {1.75}, e).outcome, Outcome::kIncorrect);
}

TEST(Compare, SignOfZeroWhereItMatters) {
  ComparisonOptions o = Options(DType::kF32, 1, true);
  EXPECT_TRUE(Judged(o, {-0.0}, Expect({0})).passed());
  o.sign_of_zero = true;
  EXPECT_FALSE(Judged(o, {-0.0}, Expect({0})).passed());
  EXPECT_TRUE(Judged(o, {-0.0}, Expect({-0.0})).passed());
}

TEST(Compare, OverflowIsRightWhereTheBoundReachesIt) {
  const ComparisonOptions o = Options(DType::kF16, 1, false);
  EXPECT_TRUE(Judged(o, {HUGE_VAL}, Expect({65500}, 64)).passed());
  EXPECT_FALSE(Judged(o, {HUGE_VAL}, Expect({60000}, 64)).passed());
  EXPECT_FALSE(Judged(o, {-HUGE_VAL}, Expect({65500}, 64)).passed());
  EXPECT_TRUE(Judged(Options(DType::kE4M3, 1, false), {kNan}, Expect({470}, 1))
                  .passed());
  EXPECT_FALSE(Judged(Options(DType::kE4M3, 1, false), {kNan}, Expect({400}, 1))
                   .passed());
}

// Each element is inside its bound, the whole is 0.1 percent too large.
TEST(Compare, GainFindsAWrongScale) {
  constexpr int64_t kN = 100000;
  V y(kN);
  FillDouble(Uniform(DType::kF32), {1, 2}, 0, kN, y.data());
  std::vector<Bounded> e;
  V scaled, honest;
  for (double v : y) {
    e.push_back(Rounded({v}, DType::kBF16));
    honest.push_back(v);
    scaled.push_back(v * 1.001);
  }
  const Comparison good = Judged(Options(DType::kBF16, kN, false), honest, e);
  EXPECT_TRUE(good.passed()) << good.reason;
  EXPECT_NEAR(good.gain, 1, good.gain_tolerance);
  EXPECT_LT(good.gain_tolerance, 2e-4);
  V slightly;
  std::vector<Bounded> wide;
  for (double v : y) {
    wide.push_back(Rounded(Rounded({v}, DType::kBF16), DType::kBF16));
    slightly.push_back(v * 1.001);
  }
  const Comparison bad =
      Judged(Options(DType::kBF16, kN, false), slightly, wide);
  EXPECT_EQ(bad.incorrect, 0);
  EXPECT_EQ(bad.suspect, 0);
  EXPECT_FALSE(bad.gain_ok);
  EXPECT_EQ(bad.outcome, Outcome::kIncorrect);
  EXPECT_NEAR(bad.gain, 1.001, 2e-4);
}

TEST(Compare, LocalisesTheRow) {
  ComparisonOptions o = Options(DType::kF32, 0, true);
  o.shape = Shape{10, 7};
  V y(70);
  for (int i = 0; i < 70; ++i) y[i] = i + 1;
  V wrong = y;
  wrong[45] = wrong[46] = 0.5;
  const Comparison c = Judged(o, wrong, Expect(y));
  ASSERT_EQ(c.failed_groups.size(), 1u);
  EXPECT_EQ(c.failed_groups[0].group, 6);
  EXPECT_EQ(c.failed_groups[0].failed, 2);
  EXPECT_EQ(c.worst_group.group, 6);
  EXPECT_NE(c.reason.find("row 6"), std::string::npos) << c.reason;
  EXPECT_EQ(c.mismatches[0].coordinates, (Shape{6, 3}));
}

TEST(Compare, StreamsInAnyOrderAndWithGaps) {
  Comparator c(Options(DType::kF32, 5000, true));
  const std::vector<float> x(5000, 2.0f);
  const V y(1500, 2.0);
  c.Add(3000, x.data() + 3000, Expect(y));
  c.Add(0, x.data(), Expect(y));
  const Comparison result = c.Finish();
  EXPECT_TRUE(result.passed());
  EXPECT_EQ(result.compared, 3000);
}

// A sum over four ranks in eight chunks, and what the diagnosis says of each way to break it.
class DiagnosisTest : public testing::TestWithParam<bool> {
 protected:
  static constexpr int64_t kN = 4096;
  static constexpr int64_t kChunk = 512;
  static constexpr int kRanks = 4;

  static void Term(int rank, int64_t begin, std::span<double> out) {
    const bool exact = GetParam();
    FillDouble(exact ? *ExactSum(DType::kF32, kRanks) : Uniform(DType::kF32),
               {1, 2, static_cast<uint64_t>(rank)}, begin,
               static_cast<int64_t>(out.size()), out.data());
  }
  static void Expected(int64_t begin, std::span<Bounded> out) {
    std::vector<std::vector<double>> x(kRanks, V(out.size()));
    for (int r = 0; r < kRanks; ++r) Term(r, begin, x[r]);
    for (size_t i = 0; i < out.size(); ++i) {
      std::vector<Bounded> terms;
      terms.reserve(kRanks);
      for (int r = 0; r < kRanks; ++r) terms.push_back({x[r][i]});
      out[i] = Sum(terms, 0x1p-24, 0x1p-24, 1);
    }
  }

  void SetUp() override {
    expected_.resize(kN);
    Expected(0, expected_);
    for (const Bounded& e : expected_) actual_.push_back(e.value);
    for (int r = 0; r < kRanks; ++r) {
      term_.emplace_back(kN);
      Term(r, 0, term_.back());
    }
  }

  std::string Diagnosis() {
    ComparisonOptions o = Options(DType::kF32, kN, GetParam());
    o.chunk = kChunk;
    o.ranks = kRanks;
    o.term = &Term;
    o.expected = &Expected;
    const Comparison c = Judged(o, actual_, expected_);
    EXPECT_EQ(c.outcome, Outcome::kIncorrect);
    return c.diagnosis;
  }

  std::vector<Bounded> expected_;
  V actual_;
  std::vector<V> term_;
};

TEST_P(DiagnosisTest, RankMissing) {
  for (int i = 1024; i < 2048; ++i) actual_[i] -= term_[3][i];
  EXPECT_EQ(Diagnosis(), "rank 3 missing in chunks 2 to 3");
}

TEST_P(DiagnosisTest, RankMissingInPartOfAChunk) {
  for (int i = 1000; i < 1100; ++i) actual_[i] -= term_[0][i];
  EXPECT_EQ(Diagnosis(), "rank 0 missing in elements 1000..1099");
}

TEST_P(DiagnosisTest, RankCountedTwice) {
  for (int i = 2048; i < 4096; ++i) actual_[i] += term_[1][i];
  EXPECT_EQ(Diagnosis(), "rank 1 counted twice in chunks 4 to 7");
}

TEST_P(DiagnosisTest, NotReducedAtAll) {
  actual_ = term_[2];
  EXPECT_EQ(Diagnosis(), "rank 2's input alone everywhere");
}

TEST_P(DiagnosisTest, ChunksSwapped) {
  std::swap_ranges(actual_.begin() + 2 * kChunk, actual_.begin() + 3 * kChunk,
                   actual_.begin() + 5 * kChunk);
  EXPECT_EQ(Diagnosis(), "chunks 2 and 5 swapped");
}

TEST_P(DiagnosisTest, ChunkInTheWrongPlace) {
  std::copy_n(actual_.begin(), kChunk, actual_.begin() + 3 * kChunk);
  EXPECT_EQ(Diagnosis(), "chunk 3 holds chunk 0");
}

TEST_P(DiagnosisTest, Scaled) {
  for (double& v : actual_) v *= 0.25;
  EXPECT_EQ(Diagnosis(), "scaled by 0.25 everywhere");
}

TEST_P(DiagnosisTest, ShiftedByOne) {
  std::rotate(actual_.begin(), actual_.begin() + 1, actual_.end());
  EXPECT_EQ(Diagnosis(), "shifted by 1 towards the front everywhere");
}

TEST_P(DiagnosisTest, ZeroAndTail) {
  std::fill(actual_.end() - 17, actual_.end(), 0.0);
  EXPECT_EQ(Diagnosis(), "all zero in the last 17 elements");
}

TEST_P(DiagnosisTest, DifferentFaultsInDifferentChunks) {
  for (int i = 0; i < 512; ++i) actual_[i] -= term_[3][i];
  for (int i = 3584; i < 4096; ++i) actual_[i] -= term_[2][i];
  EXPECT_EQ(Diagnosis(),
            "rank 3 missing in chunk 0; rank 2 missing in chunk 7");
}

INSTANTIATE_TEST_SUITE_P(Tiers, DiagnosisTest, testing::Bool(),
                         [](const auto& i) {
                           return i.param ? "exact" : "bounded";
                         });

TEST(Compare, PoisonIsRecognised) {
  for (DType d : kAllDTypes) {
    const V y = {1, 2, 3, 4, 5, 6, 7, 1};
    std::vector<char> actual = Store(d, y);
    Poison(d, &actual[5u * static_cast<size_t>(SizeOf(d))], 3);
    EXPECT_TRUE(IsPoison(d, actual.data(), 5));
    EXPECT_FALSE(IsPoison(d, actual.data(), 4));
    const Comparison c = Compare(Options(d, 8, true), actual.data(), Expect(y));
    EXPECT_EQ(c.diagnosis,
              "still poison (never written) in the last 3 elements")
        << Name(d);
  }
}

TEST(Compare, GuardsShowTheFirstDamage) {
  std::vector<char> band(300);
  FillGuard(band.data(), 300);
  EXPECT_TRUE(CheckGuard(band.data(), 300, "guard").ok());
  band[123] ^= 1;
  const Status s = CheckGuard(band.data(), 300, "the band before y");
  EXPECT_EQ(s.code(), StatusCode::kDataLoss);
  EXPECT_EQ(s.message(),
            "the band before y was overwritten at byte 123 of 300");
}

TEST(PowerCheck, RefusesABlindTolerance) {
  const std::vector<Bounded> tight = Expect({1, -2, 3}, 0.1);
  const std::vector<Bounded> loose = Expect({1, -2, 3}, 5);
  const V zero(3, 0.0);
  PowerCheck sharp(DType::kF32);
  sharp.Add("all zero", tight, zero);
  sharp.Add("rank 1 dropped", tight, V{1, -2, 2.5});
  EXPECT_TRUE(sharp.Check().ok());
  EXPECT_NEAR(sharp.Power(), 1.0 / 3, 1e-12);
  PowerCheck blind(DType::kF32);
  blind.Add("all zero", tight, zero);
  blind.Add("chunk 0 dropped", loose, zero);
  EXPECT_EQ(blind.Power(), 0);
  EXPECT_NE(blind.Check().message().find("chunk 0 dropped"), std::string::npos);
  PowerCheck exact(DType::kBF16, true);
  exact.Add("all zero", Expect({0, 0}), V{0, 0});
  EXPECT_FALSE(exact.Check().ok());
}

// Within the certain bounds, and too few elements for the gain.
TEST(PowerCheck, SuspectIsNotEnough) {
  const V y = {1, -2, 3};
  std::vector<Bounded> expected;
  for (double v : y) expected.push_back({v, 5, 0.9});
  EXPECT_EQ(Judged(Options(DType::kF32, 3, false), V(3, 0.0), expected).outcome,
            Outcome::kSuspect);
  PowerCheck power(DType::kF32);
  power.Add("all zero", expected, V(3, 0.0));
  EXPECT_FALSE(power.Check().ok());
}

// What stays infinite, or overflows with the fault as without, is the same to
// the comparison, and shows nothing.
TEST(PowerCheck, AnInfinityThatStaysShowsNothing) {
  for (const double y : {HUGE_VAL, kNan, 7e4}) {
    PowerCheck blind(DType::kF16);
    blind.Add("rank 0 dropped", Expect({y, 1}, 2),
              V{std::isfinite(y) ? 1e5 : y, 1.5});
    EXPECT_FALSE(blind.Check().ok()) << y;
    EXPECT_EQ(blind.Power(), 0) << y;
  }
  PowerCheck sharp(DType::kF16);
  sharp.Add("all zero", Expect({HUGE_VAL, 1}, 2), V{0, 0});
  EXPECT_TRUE(sharp.Check().ok());
}

// Certain bounds that no element leaves, likely ones that are tight.
// Each rank compares its own elements: what only all of them together show,
// nobody sees.
TEST(PowerCheck, ComparisonsAreNotPutTogether) {
  const V y(20, 1.0);
  const std::vector<Bounded> expected = Expect(y, 2, 1.05);
  PowerCheck apart(DType::kF32), whole(DType::kF32);
  V all;
  std::vector<Bounded> all_expected;
  for (int rank = 0; rank < 8; ++rank) {
    apart.Add("all zero", expected, V(20, 0.0));
    all.insert(all.end(), 20, 0.0);
    all_expected.insert(all_expected.end(), expected.begin(), expected.end());
  }
  whole.Add("all zero", all_expected, all);
  EXPECT_TRUE(whole.Check().ok());
  EXPECT_FALSE(apart.Check().ok());
}

TEST(PowerCheck, TheGainSeesWhatNoElementShows) {
  const V y = {1, -2, 3, 4, -5, 6};
  std::vector<Bounded> expected;
  for (double v : y) {
    expected.push_back({.value = v, .worst = 10, .likely2 = 1e-6});
  }
  const auto scaled = [&](double factor) {
    V out = y;
    for (double& v : out) v *= factor;
    return out;
  };
  PowerCheck zero(DType::kF32);
  zero.Add("all zero", expected, scaled(0));
  EXPECT_EQ(zero.Power(), 0);
  EXPECT_TRUE(zero.Check().ok());
  // The comparison itself says the same of both.
  const auto judged = [&](double factor) {
    const V c = scaled(factor);
    return Judged(Options(DType::kF32, 6, false), c, expected).outcome;
  };
  EXPECT_EQ(judged(0), Outcome::kIncorrect);
  PowerCheck small(DType::kF32);
  small.Add("a little more", expected, scaled(1 + 1e-4));
  EXPECT_FALSE(small.Check().ok());
  EXPECT_NE(judged(1 + 1e-4), Outcome::kIncorrect);
}

}  // namespace
}  // namespace shardproof
