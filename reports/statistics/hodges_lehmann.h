// The Hodges-Lehmann estimate: a middle of the differences that a few bad
// launches do not move.
//
//     one sample    median of (d_i + d_j) / 2,  i <= j   (Walsh averages)
//     two samples   median of y_j - x_i
//
// The interval of one sample is that of Wilcoxon's signed-rank test: with
// M = n (n + 1) / 2 sorted averages A_1 <= .. <= A_M it is [A_(k+1), A_(M-k)],
// k the largest number with P(T+ <= k) <= (1 - confidence) / 2.
//
//     HodgesLehmann(d)                  // Estimate
//     HodgesLehmannInterval(d, 0.95)    // At least 95 percent
//
// For n too small for the confidence (below 6 at 95 percent) the interval is
// infinite. The distribution of T+ is exact up to n = 60 and normal beyond.
// Values that are not finite are left out; the estimate of nothing is NaN. It
// takes n^2 / 2 numbers of memory.
//
// Source: Hollander and Wolfe, Nonparametric Statistical Methods, sections 3.2
// and 3.3 (one sample), 4.2 (two).
#ifndef SHARDPROOF_REPORTS_STATISTICS_HODGES_LEHMANN_H_
#define SHARDPROOF_REPORTS_STATISTICS_HODGES_LEHMANN_H_

#include <span>

#include "reports/statistics/interval.h"

namespace shardproof {

double HodgesLehmann(std::span<const double> differences);
ConfidenceInterval HodgesLehmannInterval(std::span<const double> differences,
                                         double confidence);

// The shift of y against x.
double HodgesLehmannShift(std::span<const double> x, std::span<const double> y);

// The largest k with P(T+ <= k) <= tail for n values without ties; -1: none.
int WilcoxonQuantile(int n, double tail);

}  // namespace shardproof

#endif  // SHARDPROOF_REPORTS_STATISTICS_HODGES_LEHMANN_H_
