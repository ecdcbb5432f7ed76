#include "reports/statistics/clopper_pearson.h"

#include <boost/math/distributions/beta.hpp>

namespace shardproof {

// The binomial tail is a beta distribution's: P(Binomial(n, p) >= k) =
// P(Beta(k, n - k + 1) <= p).
double ClopperPearsonLow(int k, int n, double confidence) {
  if (n < 1 || k < 1 || k > n) return 0;
  return boost::math::quantile(boost::math::beta_distribution<>(k, n - k + 1.0),
                               1 - confidence);
}

double ClopperPearsonHigh(int k, int n, double confidence) {
  if (n < 1 || k < 0 || k >= n) return 1;
  return boost::math::quantile(boost::math::beta_distribution<>(k + 1.0, n - k),
                               confidence);
}

ConfidenceInterval ClopperPearson(int k, int n, double confidence) {
  const double one_sided = (1 + confidence) / 2;
  return {.low = ClopperPearsonLow(k, n, one_sided),
          .high = ClopperPearsonHigh(k, n, one_sided)};
}

}  // namespace shardproof
