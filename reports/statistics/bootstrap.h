// The bootstrap: how far any statistic could be off, from the sample alone.
//
//     for b = 1..replicates: draw n values with replacement, compute statistic
//
//     percentile   the quantiles (1 -+ confidence) / 2 of the replicates
//     BCa          the quantiles at  Phi(z0 + (z0 + z) / (1 - a (z0 + z))),
//                  z0 from the share of replicates below the estimate, and the
//                  acceleration a from leaving out one value at a time
//
//     const BootstrapResult r = Bootstrap(x, [](std::span<const double> s) {
//       return Median({s.begin(), s.end()});
//     });
//     r.estimate, r.percentile, r.bca
//
// BCa corrects for bias and skewness, and is the one to use for smooth
// statistics; where it is not defined (all replicates on one side of the
// estimate, or a replicate that is not finite) it is the percentile interval.
//
// Degenerate input: of fewer than 2 values, of values that are not finite, and
// where the statistic of the sample is not finite, the intervals are infinite.
// The statistic must be pure; replicates for which it is NaN are left out, and
// with fewer than half of them left the intervals are infinite.
//
// Source: Efron, Better bootstrap confidence intervals, JASA 82, 1987; Efron and
// Tibshirani, An Introduction to the Bootstrap, 1993, chapters 13 and 14.
#ifndef SHARDPROOF_REPORTS_STATISTICS_BOOTSTRAP_H_
#define SHARDPROOF_REPORTS_STATISTICS_BOOTSTRAP_H_

#include <cstdint>
#include <functional>
#include <span>

#include "reports/statistics/interval.h"

namespace shardproof {

struct BootstrapOptions {
  int replicates = 2000;
  double confidence = 0.95;
  uint64_t seed = 1;
};

struct BootstrapResult {
  double estimate = 0;  // The statistic of the sample.
  ConfidenceInterval percentile = {}, bca = {};
};

using Statistic = std::function<double(std::span<const double>)>;

BootstrapResult Bootstrap(std::span<const double> values,
                          const Statistic& statistic,
                          const BootstrapOptions& options = {});

}  // namespace shardproof

#endif  // SHARDPROOF_REPORTS_STATISTICS_BOOTSTRAP_H_
