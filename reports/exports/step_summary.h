// A report as Markdown for the summary of a GitHub Actions step.
//
//     std::ofstream(std::getenv("GITHUB_STEP_SUMMARY")) << StepSummary(report);
//
// The gate's headline; what failed; comparisons, the worst first; how many
// records came to what; what did not run; what the gate can see on this
// machine. GitHub refuses a summary above 1 MiB, so tables end with "and N
// more" before that.
//
// Contract: fewer than kStepSummaryBytes bytes of UTF-8. Text of the report is
// shown as text: each punctuation character of it is a character reference, so
// that it can neither be HTML nor end a table's cell.
#ifndef SHARDPROOF_REPORTS_EXPORTS_STEP_SUMMARY_H_
#define SHARDPROOF_REPORTS_EXPORTS_STEP_SUMMARY_H_

#include <cstddef>
#include <string>

#include "reports/report.h"

namespace shardproof {

inline constexpr size_t kStepSummaryBytes = size_t{1} << 20;

std::string StepSummary(const Report& report);

}  // namespace shardproof

#endif  // SHARDPROOF_REPORTS_EXPORTS_STEP_SUMMARY_H_
