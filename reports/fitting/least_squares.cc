#include "reports/fitting/least_squares.h"

#include <algorithm>
#include <array>
#include <boost/math/distributions/students_t.hpp>
#include <cmath>
#include <limits>
#include <vector>

namespace shardproof {
namespace {

constexpr double kMiB = 1 << 20;
constexpr int kMost = 3;
using Row = std::array<double, kMost>;

// Of the squared sine between a column and the space of those before it, below
// which half of the digits of its coefficient are lost.
const double kDependent = std::sqrt(std::numeric_limits<double>::epsilon());

struct Solution {
  bool independent = false;
  Row value = {};
  Row variance = {};  // Of value, where the errors have variance 1.
  double squares = 0;
};

// The coefficients of the columns in `used` for a right side of ones, by
// modified Gram-Schmidt; the others are 0.
Solution Solve(const std::vector<Row>& rows, const std::vector<int>& used) {
  const size_t k = used.size(), n = rows.size();
  std::array<std::vector<double>, kMost> q;
  std::array<Row, kMost> r = {};
  Solution out;
  std::vector<double> rest(n, 1.0);
  Row projection = {};
  for (size_t j = 0; j < k; ++j) {
    q[j].resize(n);
    double before = 0, after = 0;
    for (size_t i = 0; i < n; ++i) {
      q[j][i] = rows[i][static_cast<size_t>(used[j])];
      before += q[j][i] * q[j][i];
    }
    for (size_t l = 0; l < j; ++l) {
      for (size_t i = 0; i < n; ++i) r[l][j] += q[l][i] * q[j][i];
      for (size_t i = 0; i < n; ++i) q[j][i] -= r[l][j] * q[l][i];
    }
    for (const double v : q[j]) after += v * v;
    if (!(after > kDependent * before)) return out;
    r[j][j] = std::sqrt(after);
    for (double& v : q[j]) v /= r[j][j];
    for (size_t i = 0; i < n; ++i) projection[j] += q[j][i] * rest[i];
    for (size_t i = 0; i < n; ++i) rest[i] -= projection[j] * q[j][i];
  }
  // R^-1 by columns: the variance of coefficient j is its row's square sum.
  std::array<Row, kMost> inverse = {};
  for (size_t c = 0; c < k; ++c) {
    for (size_t j = c + 1; j-- > 0;) {
      double sum = j == c ? 1 : 0;
      for (size_t l = j + 1; l <= c; ++l) sum -= r[j][l] * inverse[l][c];
      inverse[j][c] = sum / r[j][j];
    }
  }
  for (size_t j = 0; j < k; ++j) {
    const auto column = static_cast<size_t>(used[j]);
    for (size_t c = j; c < k; ++c) {
      out.value[column] += inverse[j][c] * projection[c];
      out.variance[column] += inverse[j][c] * inverse[j][c];
    }
  }
  for (const double v : rest) out.squares += v * v;
  out.independent = true;
  return out;
}

// The best with no negative coefficient: with so few columns every choice of
// those that are not 0 is tried.
Solution SolveNonNegative(const std::vector<Row>& rows,
                          const std::vector<int>& columns,
                          std::vector<int>& used) {
  Solution best;
  for (unsigned choice = 1; choice < 1U << columns.size(); ++choice) {
    std::vector<int> chosen;
    for (size_t j = 0; j < columns.size(); ++j) {
      if ((choice >> j & 1U) != 0) chosen.push_back(columns[j]);
    }
    const Solution s = Solve(rows, chosen);
    if (!s.independent ||
        std::ranges::any_of(s.value, [](double v) { return v < 0; })) {
      continue;
    }
    if (best.independent && s.squares >= best.squares) continue;
    best = s;
    used = chosen;
  }
  return best;
}

Status Check(std::span<const CostSample> samples) {
  if (samples.size() < 2) {
    return InvalidArgument("a fit takes at least 2 times, and there are {}",
                           samples.size());
  }
  for (const CostSample& s : samples) {
    if (std::isfinite(s.time_us) && s.time_us > 0 &&
        std::isfinite(s.alpha_count) && s.alpha_count >= 0 &&
        std::isfinite(s.beta_bytes) && s.beta_bytes >= 0 &&
        std::isfinite(s.gamma_bytes) && s.gamma_bytes >= 0) {
      continue;
    }
    return InvalidArgument(
        "{} us for {} messages, {} bytes sent and {} reduced: times are above "
        "0, costs not below, and both finite",
        s.time_us, s.alpha_count, s.beta_bytes, s.gamma_bytes);
  }
  return OkStatus();
}

}  // namespace

double LinearFit::TimeUs(const CostSample& s) const {
  const double gamma =
      gamma_us_per_mib.has_value() ? gamma_us_per_mib->value : 0;
  return s.alpha_count * alpha_us.value +
         (s.beta_bytes * beta_us_per_mib.value + s.gamma_bytes * gamma) / kMiB;
}

StatusOr<LinearFit> FitLinear(std::span<const CostSample> samples,
                              double confidence) {
  SP_RETURN_IF_ERROR(Check(samples));
  std::vector<Row> rows;
  std::vector<int> columns = {0, 1};
  bool reduces = false;
  for (const CostSample& s : samples) {
    rows.push_back({s.alpha_count / s.time_us, s.beta_bytes / kMiB / s.time_us,
                    s.gamma_bytes / kMiB / s.time_us});
    reduces = reduces || s.gamma_bytes > 0;
  }
  Solution free = Solve(rows, columns);
  if (!free.independent) {
    return InvalidArgument(
        "{} times of the same or proportional costs: they cannot tell the "
        "time of a message from that of its bytes",
        samples.size());
  }
  LinearFit fit;
  if (reduces) {
    const Solution with_gamma = Solve(rows, {0, 1, 2});
    fit.gamma_absorbed = !with_gamma.independent || samples.size() < 4;
    if (!fit.gamma_absorbed) {
      columns.push_back(2);
      free = with_gamma;
    }
  }
  std::vector<int> used;
  const Solution best = SolveNonNegative(rows, columns, used);
  fit.squares = best.squares;
  fit.coefficients = static_cast<int>(used.size());

  const auto estimate = [&](int column) {
    const auto c = static_cast<size_t>(column);
    const bool active = std::ranges::find(used, column) != used.end();
    const Solution& s = active ? best : free;
    const int freedom = static_cast<int>(rows.size()) -
                        static_cast<int>(active ? used.size() : columns.size());
    const double inf = std::numeric_limits<double>::infinity();
    if (freedom < 1) return Estimate{best.value[c], 0, inf};
    const double t = boost::math::quantile(boost::math::students_t(freedom),
                                           0.5 + confidence / 2);
    const double half = t * std::sqrt(s.squares / freedom * s.variance[c]);
    return Estimate{best.value[c], std::max(0.0, s.value[c] - half),
                    std::max(best.value[c], s.value[c] + half)};
  };
  fit.alpha_us = estimate(0);
  fit.beta_us_per_mib = estimate(1);
  if (columns.size() == kMost) fit.gamma_us_per_mib = estimate(2);
  return fit;
}

}  // namespace shardproof
