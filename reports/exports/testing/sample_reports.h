// Reports for the tests of the exports.
#ifndef SHARDPROOF_REPORTS_EXPORTS_TESTING_SAMPLE_REPORTS_H_
#define SHARDPROOF_REPORTS_EXPORTS_TESTING_SAMPLE_REPORTS_H_

#include <string>
#include <vector>

#include "reports/report.h"

namespace shardproof {

// One record of every verdict, one comparison of every change, a gate with a
// finding in quarantine, a calibration.
Report TypicalReport();

// Text that ends strings, tags, cells, lines and files of some format, or runs
// where it is not escaped.
std::vector<std::string> HostileStrings();

// For each of those a record, a comparison and a finding that have it in every
// member that is text; times are NaN and infinite.
Report HostileReport();

}  // namespace shardproof

#endif  // SHARDPROOF_REPORTS_EXPORTS_TESTING_SAMPLE_REPORTS_H_
