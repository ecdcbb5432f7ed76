#include "reports/statistics/order.h"

#include <algorithm>
#include <cmath>
#include <cstddef>

namespace shardproof {
namespace {

// std::lgamma stores the sign in a variable that all ranks would share.
double LogGamma(double x) {
  int sign = 0;
  return lgamma_r(x, &sign);
}

}  // namespace

double Quantile(std::span<const double> sorted, double q) {
  if (sorted.empty()) return 0;
  const double at = q * static_cast<double>(sorted.size() - 1);
  const auto below = static_cast<size_t>(at);
  const size_t above = std::min(below + 1, sorted.size() - 1);
  const double share = at - static_cast<double>(below);
  return sorted[below] * (1 - share) + sorted[above] * share;
}

double Median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return Quantile(values, 0.5);
}

OrderInterval MedianInterval(int n, double confidence) {
  if (n < 1) return {};
  // The largest k with P(Binomial(n, 1/2) <= k) <= (1 - confidence) / 2.
  const double tail = (1 - confidence) / 2;
  double cumulative = 0;
  int k = -1;
  while (2 * (k + 1) < n - 1) {
    const double choose =
        LogGamma(n + 1.0) - LogGamma(k + 2.0) - LogGamma(n - k);
    cumulative += std::exp(choose - n * std::log(2.0));
    if (!(cumulative <= tail)) break;
    ++k;
  }
  k = std::max(k, 0);
  return {.low = k, .high = n - 1 - k};
}

}  // namespace shardproof
