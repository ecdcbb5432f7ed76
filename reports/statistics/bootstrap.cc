#include "reports/statistics/bootstrap.h"

#include <algorithm>
#include <boost/math/distributions/normal.hpp>
#include <cmath>
#include <random>
#include <vector>

#include "reports/statistics/order.h"

namespace shardproof {
namespace {

const boost::math::normal& Normal() {
  static const boost::math::normal kNormal;
  return kNormal;
}

bool AllFinite(std::span<const double> values) {
  return std::all_of(values.begin(), values.end(),
                     [](double v) { return std::isfinite(v); });
}

// The statistic of resampled values, sorted, without those that are NaN.
std::vector<double> Replicates(std::span<const double> values,
                               const Statistic& statistic,
                               const BootstrapOptions& options) {
  std::mt19937_64 random(options.seed);
  std::vector<double> sample(values.size());
  std::vector<double> replicates;
  for (int b = 0; b < options.replicates; ++b) {
    for (double& x : sample) x = values[random() % values.size()];
    const double value = statistic(sample);
    if (!std::isnan(value)) replicates.push_back(value);
  }
  std::sort(replicates.begin(), replicates.end());
  return replicates;
}

// Skewness of the jackknife's estimates over six; NaN where there is none.
double Acceleration(std::span<const double> values,
                    const Statistic& statistic) {
  std::vector<double> estimates;
  for (size_t left_out = 0; left_out < values.size(); ++left_out) {
    std::vector<double> rest(values.begin(), values.end());
    rest.erase(rest.begin() + static_cast<ptrdiff_t>(left_out));
    estimates.push_back(statistic(rest));
  }
  double mean = 0;
  for (const double e : estimates) {
    mean += e / static_cast<double>(estimates.size());
  }
  double squares = 0;
  double cubes = 0;
  for (const double e : estimates) {
    squares += (mean - e) * (mean - e);
    cubes += (mean - e) * (mean - e) * (mean - e);
  }
  if (squares == 0) return 0;
  return cubes / (6 * std::pow(squares, 1.5));
}

// Phi(z0 + (z0 + z) / (1 - a (z0 + z))); NaN beyond its pole.
double BcaLevel(double bias, double acceleration, double level) {
  const double z = bias + boost::math::quantile(Normal(), level);
  const double below = 1 - acceleration * z;
  if (!(below > 0)) return std::nan("");
  const double at = bias + z / below;
  return std::isfinite(at) ? boost::math::cdf(Normal(), at) : std::nan("");
}

ConfidenceInterval Bca(std::span<const double> values,
                       const Statistic& statistic,
                       const std::vector<double>& replicates, double estimate,
                       double tail, ConfidenceInterval otherwise) {
  // Ties count half, as for the median of few values there are many.
  const auto [low, high] =
      std::equal_range(replicates.begin(), replicates.end(), estimate);
  const double below = (static_cast<double>(low - replicates.begin()) +
                        static_cast<double>(high - replicates.begin())) /
                       (2 * static_cast<double>(replicates.size()));
  if (below <= 0 || below >= 1 || !AllFinite(replicates)) return otherwise;
  const double bias = boost::math::quantile(Normal(), below);
  const double acceleration = Acceleration(values, statistic);
  const double from = BcaLevel(bias, acceleration, tail);
  const double to = BcaLevel(bias, acceleration, 1 - tail);
  if (!std::isfinite(from) || !std::isfinite(to)) return otherwise;
  return {.low = Quantile(replicates, from), .high = Quantile(replicates, to)};
}

}  // namespace

BootstrapResult Bootstrap(std::span<const double> values,
                          const Statistic& statistic,
                          const BootstrapOptions& options) {
  BootstrapResult result;
  result.estimate = values.empty() ? std::nan("") : statistic(values);
  if (values.size() < 2 || !AllFinite(values) ||
      !std::isfinite(result.estimate)) {
    return result;
  }
  const std::vector<double> replicates = Replicates(values, statistic, options);
  if (2 * replicates.size() <= static_cast<size_t>(options.replicates)) {
    return result;
  }
  const double tail = (1 - options.confidence) / 2;
  // The order statistics next to the quantiles: without arithmetic between
  // them, replicates may be infinite.
  const auto last = static_cast<double>(replicates.size() - 1);
  result.percentile = {
      .low = replicates[static_cast<size_t>(std::floor(tail * last))],
      .high = replicates[static_cast<size_t>(std::ceil((1 - tail) * last))]};
  result.bca = Bca(values, statistic, replicates, result.estimate, tail,
                   result.percentile);
  return result;
}

}  // namespace shardproof
