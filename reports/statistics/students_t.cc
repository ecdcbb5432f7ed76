#include "reports/statistics/students_t.h"

#include <algorithm>
#include <boost/math/distributions/students_t.hpp>
#include <cmath>
#include <limits>

namespace shardproof {
namespace {

struct Moments {
  double n = 0, mean = 0, variance = 0;
};

Moments MomentsOf(std::span<const double> values) {
  Moments m{.n = static_cast<double>(values.size())};
  for (const double v : values) m.mean += v / m.n;
  for (const double v : values) {
    m.variance += (v - m.mean) * (v - m.mean) / (m.n - 1);
  }
  // All the same: the rounding of the mean is no spread.
  if (std::all_of(values.begin(), values.end(),
                  [&](double v) { return v == values.front(); })) {
    m.mean = values.front();
    m.variance = 0;
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
  return MomentsOf(values).mean;
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

TTest OneSampleT(std::span<const double> values) {
  if (!Known(values)) return Unknown(MeanOf(values));
  const Moments m = MomentsOf(values);
  return Decide(m.mean, m.variance / m.n, m.n - 1);
}

TTest WelchT(std::span<const double> x, std::span<const double> y) {
  if (!Known(x) || !Known(y)) return Unknown(MeanOf(y) - MeanOf(x));
  const Moments mx = MomentsOf(x);
  const Moments my = MomentsOf(y);
  const double vx = mx.variance / mx.n;
  const double vy = my.variance / my.n;
  const double variance = vx + vy;
  // As shares of the whole, so that tiny variances do not underflow. Without
  // any variance every share would do.
  const double sx = variance > 0 ? vx / variance : 0.5;
  const double sy = variance > 0 ? vy / variance : 0.5;
  const double degrees = 1 / (sx * sx / (mx.n - 1) + sy * sy / (my.n - 1));
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
