#include "reports/statistics/students_t.h"

#include <algorithm>
#include <boost/math/distributions/students_t.hpp>
#include <cmath>
#include <cstddef>
#include <limits>
#include <vector>

namespace shardproof {
namespace {

struct Moments {
  double mean = 0, variance = 0;  // The variance is that of the mean.
  double degrees = 0;
};

Moments MomentsOf(std::span<const double> values, double trim) {
  std::vector<double> v(values.begin(), values.end());
  std::ranges::sort(v);
  const size_t n = v.size();
  const auto kept = static_cast<size_t>(KeptOf(static_cast<int>(n), trim));
  const size_t cut = (n - kept) / 2;
  // All the same: the rounding of the mean is no spread.
  if (v.front() == v.back()) {
    return {.mean = v.front(), .degrees = static_cast<double>(kept) - 1};
  }
  if (v[cut] == v[n - cut - 1]) return MomentsOf(values, 0);

  const auto h = static_cast<double>(kept);
  Moments m{.degrees = h - 1};
  for (size_t i = cut; i < n - cut; ++i) m.mean += v[i] / h;
  const double lowest = v[cut];
  const double highest = v[n - cut - 1];
  double winsorized = 0;
  for (double& x : v) {
    x = std::clamp(x, lowest, highest);
    winsorized += x / static_cast<double>(n);
  }
  for (const double x : v) {
    m.variance += (x - winsorized) * (x - winsorized) / (h * (h - 1));
  }
  return m;
}

bool Known(std::span<const double> values) {
  return values.size() >= 2 &&
         std::all_of(values.begin(), values.end(),
                     [](double v) { return std::isfinite(v); });
}

TTest Unknown(double mean) {
  TTest test;
  test.mean = mean;
  test.standard_error = std::numeric_limits<double>::infinity();
  return test;
}

double MeanOf(std::span<const double> values) {
  if (values.empty()) return std::numeric_limits<double>::quiet_NaN();
  const auto n = static_cast<double>(values.size());
  double mean = 0;
  for (const double v : values) mean += v / n;
  return mean;
}

TTest Decide(double mean, double variance, double degrees) {
  // Squares that left the range of a double say nothing.
  if (!std::isfinite(mean) || !std::isfinite(variance)) return Unknown(mean);
  TTest test{
      .mean = mean, .standard_error = std::sqrt(variance), .degrees = degrees};
  if (test.standard_error > 0) {
    test.t = mean / test.standard_error;
  } else if (mean != 0) {
    test.t = std::copysign(std::numeric_limits<double>::infinity(), mean);
  }
  if (std::isinf(test.t)) {
    test.p_greater = test.t > 0 ? 0 : 1;
    test.p_less = 1 - test.p_greater;
    test.p_two_sided = 0;
    return test;
  }
  const boost::math::students_t distribution(degrees);
  test.p_less = boost::math::cdf(distribution, test.t);
  test.p_greater =
      boost::math::cdf(boost::math::complement(distribution, test.t));
  test.p_two_sided = std::min(1.0, 2 * std::min(test.p_less, test.p_greater));
  return test;
}

}  // namespace

int KeptOf(int n, double trim) {
  return n - 2 * static_cast<int>(std::floor(trim * n));
}

TTest OneSampleT(std::span<const double> values, double trim) {
  if (!Known(values)) return Unknown(MeanOf(values));
  const Moments m = MomentsOf(values, trim);
  return Decide(m.mean, m.variance, m.degrees);
}

TTest WelchT(std::span<const double> x, std::span<const double> y,
             double trim) {
  if (!Known(x) || !Known(y)) return Unknown(MeanOf(y) - MeanOf(x));
  const Moments mx = MomentsOf(x, trim);
  const Moments my = MomentsOf(y, trim);
  const double variance = mx.variance + my.variance;
  // As shares of the whole, so that tiny variances do not underflow. Without
  // any variance every share would do.
  const double sx = variance > 0 ? mx.variance / variance : 0.5;
  const double sy = variance > 0 ? my.variance / variance : 0.5;
  const double degrees = 1 / (sx * sx / mx.degrees + sy * sy / my.degrees);
  return Decide(my.mean - mx.mean, variance, degrees);
}

ConfidenceInterval TInterval(const TTest& test, double confidence) {
  if (!(test.degrees > 0)) return {};
  const double half =
      test.standard_error > 0
          ? test.standard_error * TQuantile(test.degrees, (1 + confidence) / 2)
          : 0;
  return {.low = test.mean - half, .high = test.mean + half};
}

double TQuantile(double degrees, double p) {
  return boost::math::quantile(boost::math::students_t(degrees), p);
}

}  // namespace shardproof
