// A report as JUnit XML, which continuous integration shows as tests.
//
//     suite "correctness"   one testcase per record
//     suite "performance"   one testcase per comparison, and per finding of the
//                           gate that no other testcase shows ("missing")
//
//     incorrect, suspect; regressed     <failure>
//     failed; invalid, missing          <error>: nobody knows if it is right
//     unsupported, not_built            <skipped>
//     inconclusive                      <skipped>, <failure> where the gate
//                                       counts it as a finding
//     quarantined findings              <skipped>, with owner, reason and date
//     passed; improved, equivalent      nothing inside but numbers
//
// Contract: well-formed XML 1.0 in UTF-8, whatever the report holds; classname
// is the case, name the rest of the key, and numbers are <property> elements;
// the body of a failure is the reason and the line that reproduces it. The
// counts of the suites are those of the elements.
//
// Source: github.com/testmoapp/junitxml, which describes what readers accept.
#ifndef SHARDPROOF_REPORTS_EXPORTS_JUNIT_H_
#define SHARDPROOF_REPORTS_EXPORTS_JUNIT_H_

#include <string>

#include "reports/report.h"

namespace shardproof {

std::string JUnit(const Report& report);

}  // namespace shardproof

#endif  // SHARDPROOF_REPORTS_EXPORTS_JUNIT_H_
