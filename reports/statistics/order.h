// Order statistics: quantiles, the median and its distribution-free interval.
//
//     std::sort(x.begin(), x.end());
//     Quantile(x, 0.9)                    // The 90th percentile.
//     const OrderInterval i = MedianInterval(static_cast<int>(x.size()));
//     x[i.low], x[i.high]                 // 95 percent, of the median.
//
// Nothing of a distribution library is included: the harness uses this.
#ifndef SHARDPROOF_REPORTS_STATISTICS_ORDER_H_
#define SHARDPROOF_REPORTS_STATISTICS_ORDER_H_

#include <span>
#include <vector>

namespace shardproof {

// The q-quantile (0 <= q <= 1) of `sorted`, by linear interpolation at
// q (n - 1) (R's type 7); 0 of nothing.
double Quantile(std::span<const double> sorted, double q);

// The median of values in any order; 0 of nothing.
double Median(std::vector<double> values);

// Indices of the order statistics that enclose the median of any continuous
// distribution with at least `confidence`: the smallest symmetric interval
// [x_(low), x_(high)] with P(Binomial(n, 1/2) in (low, high]) >= confidence.
// For n too small (below 6 at 95 percent) it is the whole range, which has
// less. Source: Hahn and Meeker, Statistical Intervals, 1991, section 5.2.
struct OrderInterval {
  int low = 0;   // Zero-based.
  int high = 0;  // Zero-based, inclusive.
};
OrderInterval MedianInterval(int n, double confidence = 0.95);

}  // namespace shardproof

#endif  // SHARDPROOF_REPORTS_STATISTICS_ORDER_H_
