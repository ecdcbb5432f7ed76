#include "reports/statistics/equivalence.h"

#include <algorithm>
#include <boost/math/distributions/students_t.hpp>
#include <cmath>

namespace shardproof {

EquivalenceTest Equivalence(const TTest& test, double share, double alpha) {
  EquivalenceTest result;
  if (!(test.degrees > 0)) return result;
  const double bound = std::log1p(share);
  result.interval = TInterval(test, 1 - 2 * alpha);
  result.equivalent =
      -bound <= result.interval.low && result.interval.high <= bound;
  // The nearer bound decides.
  const double inside = bound - std::abs(test.mean);
  if (test.standard_error > 0) {
    const boost::math::students_t distribution(test.degrees);
    result.p = boost::math::cdf(
        boost::math::complement(distribution, inside / test.standard_error));
  } else {
    result.p = inside >= 0 ? 0 : 1;
  }
  return result;
}

}  // namespace shardproof
