// Records and comparisons as CSV (RFC 4180), for spreadsheets and data frames.
//
//     RecordsCsv(report)      // launch,started,host,case,...,param_count,...
//     ComparisonsCsv(report)  // key,case,...,change,effect,...
//
// Contract: one header line, one line each, CRLF, every line with the same
// number of cells. Parameters are columns named param_<axis>, in the order in
// which they are first met. Numbers are such; what is not known is empty.
//
// A cell of text that begins with =, +, -, @, a tab or a carriage return, and is
// no number, gets a ' before it: a spreadsheet would take it for a formula and
// run it (OWASP, CSV Injection). What is not UTF-8, and control characters, are
// replaced.
#ifndef SHARDPROOF_REPORTS_EXPORTS_CSV_H_
#define SHARDPROOF_REPORTS_EXPORTS_CSV_H_

#include <string>

#include "reports/report.h"

namespace shardproof {

std::string RecordsCsv(const Report& report);
std::string ComparisonsCsv(const Report& report);

}  // namespace shardproof

#endif  // SHARDPROOF_REPORTS_EXPORTS_CSV_H_
