// How many more pairs would decide: the smallest number with which the present
// mean and spread would be a verdict.
//
//     e(n)          the error of a trimmed mean of n, by students_t.h, sd = 1
//     difference    P(T_{h-1} > |mean| / (sd e(n))) < p_wanted, |mean| > margin
//     equivalence   |mean| + quantile(0.95) sd e(n) <= ln(1 + equivalence)
//
// Part of verdict.h; for nobody else.
#ifndef SHARDPROOF_REPORTS_STATISTICS_VERDICT_PLAN_H_
#define SHARDPROOF_REPORTS_STATISTICS_VERDICT_PLAN_H_

#include <optional>

#include "reports/statistics/verdict.h"

namespace shardproof {

struct Plan {
  double mean = 0, sd = 0;    // Of one pair, logarithms, as students_t.h trims.
  int degrees_per_count = 1;  // 2 where both sides have a spread of their own.
  int taken = 0;              // Pairs that there are.
  double p_wanted = 0.05;
  double margin = 0;           // A share.
  bool screened_only = false;  // A difference still has to become suspect.
};

// e(n), n at least 2.
double ErrorPerSpread(int n, double trim);

// At least 1; nothing where no number up to rules.most_pairs in all would do.
std::optional<int> MoreToDecide(const Plan& plan, const Rules& rules);

}  // namespace shardproof

#endif  // SHARDPROOF_REPORTS_STATISTICS_VERDICT_PLAN_H_
