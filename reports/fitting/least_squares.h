// Weighted least squares for the time of messages, by the terms of their cost.
//
//     time = alpha_count * alpha + beta_bytes * beta + gamma_bytes * gamma
//
// with non-negative coefficients and weights 1 / time^2, which makes errors
// relative ones: the sum of (1 - fitted / time)^2 is least.
//
//     SP_ASSIGN_OR_RETURN(const LinearFit fit, FitLinear(samples));
//     fit.alpha_us.value, fit.alpha_us.low, fit.alpha_us.high
//
// Intervals are Student's t with n - k degrees of freedom. A coefficient that
// would be negative is 0, and its interval ends where that of the fit without
// the constraint does. gamma is left out, and what it costs lies in beta, where
// its column is a combination of the other two; ring all_reduce reduces half of
// what it sends, so nobody can tell the two apart there.
//
// kInvalidArgument: fewer than two samples, a time or cost that is not
// positive and finite, or nothing to tell alpha and beta apart.
// Sources: Lawson and Hanson, Solving Least Squares Problems, 1974, chapters 12
// and 23; Hockney, Parallel Computing 20(3), 1994, for alpha and beta.
#ifndef SHARDPROOF_REPORTS_FITTING_LEAST_SQUARES_H_
#define SHARDPROOF_REPORTS_FITTING_LEAST_SQUARES_H_

#include <cstdint>
#include <optional>
#include <span>

#include "reference/status.h"
#include "reports/interconnect.h"

namespace shardproof {

struct CostSample {
  int64_t bytes = 0;  // Of the operation.
  double alpha_count = 1, beta_bytes = 0, gamma_bytes = 0;
  double time_us = 0;
};

struct LinearFit {
  Estimate alpha_us = {};         // Per message on the longest path.
  Estimate beta_us_per_mib = {};  // 2^20 bytes.
  std::optional<Estimate> gamma_us_per_mib = {};
  bool gamma_absorbed = false;  // Asked for, and not to be told from beta.
  double squares = 0;           // Sum of squared relative errors.
  int coefficients = 0;

  double TimeUs(const CostSample& sample) const;
};

StatusOr<LinearFit> FitLinear(std::span<const CostSample> samples,
                              double confidence = 0.95);

}  // namespace shardproof

#endif  // SHARDPROOF_REPORTS_FITTING_LEAST_SQUARES_H_
