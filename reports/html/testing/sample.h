// Reports to test with: what a good week, a bad one and an enemy would write.
#ifndef SHARDPROOF_REPORTS_HTML_TESTING_SAMPLE_H_
#define SHARDPROOF_REPORTS_HTML_TESTING_SAMPLE_H_

#include <string>
#include <vector>

#include "reports/report.h"

namespace shardproof::testing {

// Something on every page: a failed gate, a slow link, a change point.
Report RichReport();
// Markup, script, quotes, invalid UTF-8, long names in every text member, and
// NaN and infinities in numbers. A script that ran would set window.injected.
Report HostileReport();
// `records` records with all the samples that a record keeps.
Report LargeReport(int records);

// Texts that would be markup or script where they are not escaped.
std::vector<std::string> HostileTexts();

}  // namespace shardproof::testing

#endif  // SHARDPROOF_REPORTS_HTML_TESTING_SAMPLE_H_
