#include "reports/exports/step_summary.h"

#include <gtest/gtest.h>

#include <string>

#include "reports/exports/testing/sample_reports.h"

namespace shardproof {
namespace {

TEST(StepSummary, TheWorstFirst) {
  const std::string text = StepSummary(TypicalReport());
  EXPECT_NE(text.find("**FAILED&#58; 1 wrong result** (exit code 1)"),
            std::string::npos)
      << text;
  // In the table of comparisons, once it has begun.
  size_t from = 0;
  const auto at = [&](const std::string& what) {
    const size_t found = text.find(what, from);
    EXPECT_NE(found, std::string::npos) << what;
    return found;
  };
  EXPECT_LT(at("| incorrect | "), at("### Quarantined"));
  EXPECT_LT(at("### Quarantined"), at("ada&#58; ticket 7"));
  from = at("### Comparisons");
  // Slower by 12 percent before 7, then what nobody knows, then the rest.
  EXPECT_LT(at("| regressed | <code>collectives/all&#95;reduce slower"),
            at("| regressed | <code>collectives/all&#95;reduce tree"));
  EXPECT_LT(at("all&#95;reduce tree"), at("| invalid |"));
  EXPECT_LT(at("| invalid |"), at("| inconclusive | <code>collectives"));
  EXPECT_LT(at("all&#95;reduce noisy"), at("| improved |"));
  EXPECT_LT(at("| improved |"), at("| equivalent |"));
  at("backend cuda&#58; there is no GPU");
  at("false alarm in 0&#46;33 percent");
  from = 0;
  at("8 records: 2 passed, 2 incorrect, 1 suspect, 1 failed, 1 unsupported, "
     "1 not built.");
}

TEST(StepSummary, WithoutAGateTheRecordsThatFailed) {
  Report report = TypicalReport();
  report.gate.reset();
  const std::string text = StepSummary(report);
  EXPECT_LT(text.find("| incorrect |"), text.find("| failed |"));
  EXPECT_LT(text.find("| failed |"), text.find("| suspect |"));
  EXPECT_EQ(text.find("| unsupported |"), std::string::npos);
  EXPECT_NE(StepSummary({}).find("No records."), std::string::npos);
}

TEST(StepSummary, ShowsTextAsText) {
  Report report;
  report.title = "<img src=x onerror=alert(1)> | `x` *y* [z](u) &amp; \\|\n# h";
  const std::string text = StepSummary(report);
  const std::string title = text.substr(0, text.find('\n'));
  EXPECT_EQ(title,
            "## &#60;img src&#61;x onerror&#61;alert&#40;1&#41;&#62; &#124; "
            "&#96;x&#96; &#42;y&#42; &#91;z&#93;&#40;u&#41; &#38;amp&#59; "
            "&#92;&#124; &#35; h");
}

TEST(StepSummary, IsNeverTooLarge) {
  // Everything as long as it gets, and all of it escaped six for one.
  Report report;
  const std::string endless(5000, '|');
  report.title = endless;
  report.gate = GateOutcome{.headline = endless};
  for (int i = 0; i < 3000; ++i) {
    report.comparisons.push_back({.key = endless, .reason = endless});
    report.gate->findings.push_back({.key = endless,
                                     .kind = endless,
                                     .reason = endless,
                                     .repro = endless,
                                     .quarantined = i % 2 == 0,
                                     .quarantine = endless});
    report.gate->notes.push_back(endless);
  }
  report.launches.emplace_back().name = endless;
  report.launches[0].left_out.assign(3000, endless);
  const std::string text = StepSummary(report);
  EXPECT_LT(text.size(), kStepSummaryBytes);
  EXPECT_GT(text.size(), kStepSummaryBytes / 2);
  // The rows that are there, and how many are not.
  const size_t heading = text.find("### Comparisons");
  size_t rows = 0;
  for (size_t at = text.find("\n| invalid |", heading); at != std::string::npos;
       at = text.find("\n| invalid |", at + 1)) {
    ++rows;
  }
  EXPECT_GT(rows, 10U);
  EXPECT_NE(text.find("and " + std::to_string(3000 - rows) + " more", heading),
            std::string::npos);
}

}  // namespace
}  // namespace shardproof
