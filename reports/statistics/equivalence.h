// Two one-sided tests (TOST): is the effect so small that it does not matter?
//
//     equivalent  <=>  the 90 percent interval of mean(d) lies in
//                      [-ln(1 + share), ln(1 + share)]
//
// which is the same as both one-sided t tests at 5 percent saying that the
// mean is inside. On the scale of logarithms, so that base and candidate may be
// swapped: 5 percent slower is as far from equal as 1 / 1.05.
//
//     Equivalence(OneSampleT(log_ratios), 0.05).equivalent
//
// Absence of a significant difference is no equivalence: of fewer than 2 values
// nothing is known, and it is not claimed.
//
// Source: Schuirmann, A comparison of the two one-sided tests procedure, J.
// Pharmacokinetics and Biopharmaceutics 15, 1987.
#ifndef SHARDPROOF_REPORTS_STATISTICS_EQUIVALENCE_H_
#define SHARDPROOF_REPORTS_STATISTICS_EQUIVALENCE_H_

#include "reports/statistics/interval.h"
#include "reports/statistics/students_t.h"

namespace shardproof {

struct EquivalenceTest {
  ConfidenceInterval interval = {};  // Of the mean, logarithms, 1 - 2 alpha.
  double p = 1;                      // The larger of the two tests'.
  bool equivalent = false;
};
// `test` of differences of logarithms; `share` above 0.
EquivalenceTest Equivalence(const TTest& test, double share,
                            double alpha = 0.05);

}  // namespace shardproof

#endif  // SHARDPROOF_REPORTS_STATISTICS_EQUIVALENCE_H_
