// A report as OpenMetrics text, for Prometheus and what reads its format.
//
//     # TYPE shardproof_median_seconds gauge
//     # UNIT shardproof_median_seconds seconds
//     # HELP shardproof_median_seconds Median time of one operation.
//     shardproof_median_seconds{launch="0",case="collectives/all_reduce",...} 1e-05
//     ...
//     # EOF
//
// Contract: base units (seconds, bytes per second, ratios) with their suffix;
// every family once, with its samples together; no two samples with the same
// labels: of several records with one key in one launch the first is shown.
// `launch` numbers the result files from 0, and shardproof_run_info says what
// each is. Text that is not UTF-8 and control characters are replaced.
//
// Source: the OpenMetrics specification 1.0.0.
#ifndef SHARDPROOF_REPORTS_EXPORTS_OPENMETRICS_H_
#define SHARDPROOF_REPORTS_EXPORTS_OPENMETRICS_H_

#include <string>

#include "reports/report.h"

namespace shardproof {

std::string OpenMetrics(const Report& report);

}  // namespace shardproof

#endif  // SHARDPROOF_REPORTS_EXPORTS_OPENMETRICS_H_
