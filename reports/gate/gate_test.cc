#include "reports/gate/gate.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <limits>
#include <string>
#include <vector>

#include "reports/key.h"

namespace shardproof {
namespace {

using ::testing::HasSubstr;

constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();

Record Passed(const std::string& variant, double median = 10) {
  Record record{.case_name = "collectives/all_reduce",
                .variant = variant,
                .backend = "thread",
                .ranks = 2,
                .verdict = Verdict::kPassed};
  if (median != 0) {
    record.time_us = Record::Time{.median = median, .samples = 1};
  }
  return record;
}

Record Failed(const std::string& variant, Verdict verdict,
              const std::string& reason = "because") {
  Record record = Passed(variant, 0);
  record.verdict = verdict;
  record.reason = reason;
  record.repro = "shardproof verify --filter " + variant;
  return record;
}

Launch Of(std::vector<Record> records, const std::string& cpu = "Xeon") {
  return {.name = "results.json",
          .complete = true,
          .fingerprint = {.cpu = cpu, .mpi = "Open MPI v4.1.4"},
          .records = std::move(records)};
}

Comparison Compared(const std::string& variant, Change change) {
  return {.key = KeyOf(Passed(variant)), .change = change, .reason = "reason"};
}

std::string Key(const std::string& variant) { return KeyOf(Passed(variant)); }

class GateTest : public ::testing::Test {
 protected:
  GateOutcome Judge() const {
    return Evaluate(policy_, {.candidate = candidate_,
                              .baseline = baseline_,
                              .comparisons = comparisons_,
                              .today = "2026-06-15T12:00:00Z"});
  }
  void SetPolicy(const std::string& text) {
    auto policy = ParsePolicy("version = 1\n" + text, "gate.toml");
    ASSERT_TRUE(policy.ok()) << policy.status().ToString();
    policy_ = *std::move(policy);
  }
  void SetQuarantine(const std::string& filter, const std::string& expires) {
    SetPolicy(
        "[[quarantine]]\nfilter = \"" + filter +
        "\"\nowner = \"me\"\nreason = \"ticket 1\"\nexpires = " + expires);
  }
  // One finding, of this code, kind and key.
  static void ExpectOnly(const GateOutcome& outcome, int exit_code,
                         const std::string& kind, const std::string& key) {
    EXPECT_EQ(outcome.exit_code, exit_code) << outcome.headline;
    ASSERT_EQ(outcome.findings.size(), 1u) << outcome.headline;
    EXPECT_EQ(outcome.findings[0].kind, kind);
    EXPECT_EQ(outcome.findings[0].key, key);
    EXPECT_FALSE(outcome.findings[0].reason.empty());
    EXPECT_FALSE(outcome.findings[0].quarantined);
  }
  static bool Noted(const GateOutcome& outcome, const std::string& text) {
    for (const std::string& note : outcome.notes) {
      if (note.find(text) != std::string::npos) return true;
    }
    return false;
  }

  Policy policy_ = DefaultPolicy();
  std::vector<Launch> candidate_ = {Of({Passed("ring"), Passed("tree")})};
  std::vector<Launch> baseline_ = {Of({Passed("ring"), Passed("tree")})};
  std::vector<Comparison> comparisons_ = {Compared("ring", Change::kEquivalent),
                                          Compared("tree", Change::kImproved)};
};

TEST_F(GateTest, PassesWhatIsCorrectAndNotSlower) {
  const GateOutcome outcome = Judge();
  EXPECT_EQ(outcome.exit_code, 0);
  EXPECT_TRUE(outcome.findings.empty());
  EXPECT_EQ(outcome.headline, "PASSED: 2 results passed, 2 compared");
  EXPECT_TRUE(Noted(outcome, "judged by the default policy"));
}

TEST_F(GateTest, WithoutABaselineOnlyCorrectnessIsJudged) {
  baseline_.clear();
  comparisons_.clear();
  const GateOutcome outcome = Judge();
  EXPECT_EQ(outcome.exit_code, 0);
  EXPECT_TRUE(Noted(outcome, "only correctness"));
}

TEST_F(GateTest, NothingIsNotAPass) {
  baseline_.clear();
  comparisons_.clear();
  candidate_.clear();
  ExpectOnly(Judge(), 5, "missing", "");
  candidate_ = {Of({})};
  ExpectOnly(Judge(), 5, "missing", "");
  candidate_ = {Of({Failed("ring", Verdict::kUnsupported),
                    Failed("tree", Verdict::kNotBuilt)})};
  ExpectOnly(Judge(), 5, "missing", "");
}

TEST_F(GateTest, EveryVerdictHasItsCode) {
  const auto with = [&](const Record& record) {
    candidate_ = {Of({Passed("ring"), Passed("tree"), record})};
    return Judge();
  };
  ExpectOnly(with(Failed("new", Verdict::kIncorrect)), 1, "incorrect",
             Key("new"));
  EXPECT_EQ(Judge().findings[0].repro, "shardproof verify --filter new");
  EXPECT_EQ(Judge().headline, "FAILED: 1 wrong result");
  ExpectOnly(with(Failed("new", Verdict::kSuspect)), 1, "incorrect",
             Key("new"));
  ExpectOnly(with(Failed("new", Verdict::kFailed, "hung: rank 1")), 124,
             "failed", Key("new"));
  ExpectOnly(with(Failed("new", Verdict::kFailed, "crashed")), 6, "failed",
             Key("new"));
  EXPECT_EQ(with(Failed("new", Verdict::kUnsupported)).exit_code, 0);
  EXPECT_EQ(with(Failed("new", Verdict::kNotBuilt)).exit_code, 0);
  for (const double time :
       {kNaN, -1.0, std::numeric_limits<double>::infinity()}) {
    ExpectOnly(with(Passed("new", time)), 5, "invalid", Key("new"));
  }
  EXPECT_EQ(with(Passed("new", 0)).exit_code, 0);  // Not measured at all.
}

TEST_F(GateTest, TheWorstComesFirst) {
  // All of them, the least first; taken away from the end.
  SetPolicy("inconclusive = \"fail\"");
  const std::vector<int> codes = {4, 3, 5, 6, 124, 1};
  for (size_t n = 0; n <= codes.size(); ++n) {
    candidate_ = {Of({Passed("ring"), Passed("tree")})};
    comparisons_ = {Compared("ring", Change::kEquivalent),
                    Compared("tree", Change::kEquivalent)};
    if (n > 0) comparisons_[0].change = Change::kInconclusive;
    if (n > 1) comparisons_[1].change = Change::kRegressed;
    auto& records = candidate_[0].records;
    if (n > 2) records.push_back(Passed("a", kNaN));
    if (n > 3) records.push_back(Failed("b", Verdict::kFailed));
    if (n > 4) records.push_back(Failed("c", Verdict::kFailed, "hung"));
    if (n > 5) records.push_back(Failed("d", Verdict::kIncorrect));
    const GateOutcome outcome = Judge();
    EXPECT_EQ(outcome.exit_code, n == 0 ? 0 : codes[n - 1]);
    ASSERT_EQ(outcome.findings.size(), n);
    if (n == 6) {
      EXPECT_EQ(outcome.headline,
                "FAILED: 1 wrong result, 1 hang, 1 failure, 1 missing or "
                "invalid, 1 slow-down, 1 inconclusive");
      EXPECT_EQ(outcome.findings[0].key, Key("d"));
      EXPECT_EQ(outcome.findings[5].kind, "inconclusive");
    }
  }
}

TEST_F(GateTest, ALaunchThatDidNotEndIsInvalid) {
  candidate_[0].complete = false;
  ExpectOnly(Judge(), 5, "invalid", "");
  candidate_[0].interrupted = true;
  ExpectOnly(Judge(), 5, "invalid", "");
  EXPECT_THAT(Judge().findings[0].reason, HasSubstr("interrupted"));
  candidate_[0] = Of({Passed("ring"), Passed("tree")});
  candidate_[0].left_out = {"pipeline: 3 of 9 (out of time)"};
  EXPECT_EQ(Judge().exit_code, 0);
  EXPECT_TRUE(Noted(Judge(), "3 of 9"));
}

TEST_F(GateTest, WhatTheBaselineHasMustBeThere) {
  candidate_ = {Of({Passed("ring")})};
  ExpectOnly(Judge(), 5, "missing", Key("tree"));
  candidate_ = {Of({Passed("ring"), Failed("tree", Verdict::kUnsupported)})};
  ExpectOnly(Judge(), 5, "missing", Key("tree"));
  EXPECT_THAT(Judge().findings[0].reason, HasSubstr("unsupported: because"));
  candidate_ = {Of({Passed("ring"), Passed("tree", 0)})};
  ExpectOnly(Judge(), 5, "missing", Key("tree"));
  // In any of the launches is enough.
  candidate_ = {Of({Passed("ring")}), Of({Passed("tree")})};
  EXPECT_EQ(Judge().exit_code, 0);
  // A wrong one is not missing.
  candidate_ = {Of({Passed("ring"), Failed("tree", Verdict::kIncorrect)})};
  ExpectOnly(Judge(), 1, "incorrect", Key("tree"));
}

TEST_F(GateTest, WhatWasMeasuredTwiceMustBeCompared) {
  comparisons_.pop_back();
  ExpectOnly(Judge(), 5, "missing", Key("tree"));
}

TEST_F(GateTest, AnEmptyBaselineIsInvalid) {
  baseline_ = {Of({})};
  comparisons_.clear();
  ExpectOnly(Judge(), 5, "invalid", "");
  EXPECT_THAT(Judge().findings[0].reason, HasSubstr("baseline"));
}

TEST_F(GateTest, TimesOfTwoMachinesAreNotCompared) {
  baseline_ = {Of({Passed("ring"), Passed("tree")}, "EPYC")};
  comparisons_[0].change = Change::kRegressed;
  ExpectOnly(Judge(), 5, "invalid", "");
  EXPECT_THAT(Judge().findings[0].reason, HasSubstr("cpu EPYC and Xeon"));
  // Correctness is of no machine.
  candidate_[0].records.push_back(Failed("new", Verdict::kIncorrect));
  EXPECT_EQ(Judge().exit_code, 1);
}

TEST_F(GateTest, AnotherEpochIsNoted) {
  candidate_[0].fingerprint.mpi = "Open MPI v4.1.5";
  EXPECT_EQ(Judge().exit_code, 0);
  EXPECT_TRUE(Noted(Judge(), "Open MPI v4.1.4 -> v4.1.5"));
}

TEST_F(GateTest, ComparisonsHaveTheirCodes) {
  comparisons_[0].change = Change::kRegressed;
  ExpectOnly(Judge(), 3, "regressed", Key("ring"));
  EXPECT_EQ(Judge().headline, "FAILED: 1 slow-down");
  comparisons_[0].change = Change::kInvalid;
  ExpectOnly(Judge(), 5, "invalid", Key("ring"));
  comparisons_[0].change = Change::kEquivalent;
  comparisons_[0].effect = kNaN;
  ExpectOnly(Judge(), 5, "invalid", Key("ring"));
  comparisons_[0] = Compared("ring", Change::kInconclusive);
  ExpectOnly(Judge(), 0, "inconclusive", Key("ring"));
  EXPECT_THAT(Judge().headline, HasSubstr("1 inconclusive"));
  SetPolicy("inconclusive = \"fail\"");
  ExpectOnly(Judge(), 4, "inconclusive", Key("ring"));
}

TEST_F(GateTest, FiltersSayWhatIsLookedAt) {
  SetPolicy("[filters]\nexclude = [\" tree \"]\nrequired = [\" ring \"]");
  candidate_ = {Of({Passed("ring"), Failed("tree", Verdict::kIncorrect)})};
  comparisons_[1].change = Change::kRegressed;
  EXPECT_EQ(Judge().exit_code, 0);
  candidate_ = {Of({Passed("other")})};
  baseline_.clear();
  comparisons_.clear();
  ExpectOnly(Judge(), 5, "missing", "");
  EXPECT_THAT(Judge().findings[0].reason, HasSubstr("\" ring \""));
}

TEST_F(GateTest, SeveralLaunchesAreOneFinding) {
  candidate_ = {Of({Passed("ring"), Passed("tree")}),
                Of({Passed("ring"), Failed("tree", Verdict::kIncorrect)}),
                Of({Passed("ring"), Failed("tree", Verdict::kIncorrect)})};
  ExpectOnly(Judge(), 1, "incorrect", Key("tree"));
  EXPECT_THAT(Judge().findings[0].reason, HasSubstr("(in 2 of 3 launches)"));
}

TEST_F(GateTest, AQuarantinedFindingIsListedAndDoesNotCount) {
  SetQuarantine(" tree ", "2026-06-15");  // The last day.
  candidate_ = {Of({Passed("ring"), Failed("tree", Verdict::kIncorrect)})};
  comparisons_[0].change = Change::kRegressed;
  const GateOutcome outcome = Judge();
  EXPECT_EQ(outcome.exit_code, 3);
  EXPECT_EQ(outcome.headline, "FAILED: 1 slow-down, 1 in quarantine");
  ASSERT_EQ(outcome.findings.size(), 2u);
  EXPECT_EQ(outcome.findings[0].key, Key("tree"));  // On top.
  EXPECT_TRUE(outcome.findings[0].quarantined);
  EXPECT_EQ(outcome.findings[0].quarantine, "me: ticket 1, until 2026-06-15");
  EXPECT_FALSE(outcome.findings[1].quarantined);
}

TEST_F(GateTest, AQuarantineEnds) {
  candidate_ = {Of({Passed("ring"), Failed("tree", Verdict::kIncorrect)})};
  SetQuarantine(" tree ", "2026-06-14");
  ExpectOnly(Judge(), 1, "incorrect", Key("tree"));
  EXPECT_TRUE(Noted(Judge(), "has expired on 2026-06-14"));
  SetQuarantine(" tree ", "2026-09-13");  // 90 days.
  EXPECT_EQ(Judge().exit_code, 0);
  SetQuarantine(" tree ", "2026-09-14");
  ExpectOnly(Judge(), 1, "incorrect", Key("tree"));
  EXPECT_TRUE(Noted(Judge(), "more than 90 days ahead"));
  SetQuarantine(" nothing ", "2026-06-20");
  EXPECT_TRUE(Noted(Judge(), "it can go"));
}

TEST_F(GateTest, WhatIsOfTheWholeLaunchCannotBeQuarantined) {
  SetQuarantine("", "2026-06-20");
  candidate_[0].complete = false;
  ExpectOnly(Judge(), 5, "invalid", "");
}

TEST_F(GateTest, WithoutADayThereIsNoQuarantine) {
  SetQuarantine(" tree ", "2026-06-20");
  candidate_ = {Of({Passed("ring"), Failed("tree", Verdict::kIncorrect)})};
  const GateOutcome outcome =
      Evaluate(policy_, {.candidate = candidate_, .today = "today"});
  ExpectOnly(outcome, 1, "incorrect", Key("tree"));
  EXPECT_TRUE(Noted(outcome, "not known which day"));
}

}  // namespace
}  // namespace shardproof
