#include "reports/statistics/hodges_lehmann.h"

#include <algorithm>
#include <boost/math/distributions/normal.hpp>
#include <cmath>
#include <limits>
#include <vector>

#include "reports/statistics/order.h"

namespace shardproof {
namespace {

constexpr int kExact = 60;

std::vector<double> Finite(std::span<const double> values) {
  std::vector<double> finite;
  std::copy_if(values.begin(), values.end(), std::back_inserter(finite),
               [](double v) { return std::isfinite(v); });
  return finite;
}

std::vector<double> WalshAverages(std::span<const double> differences) {
  const std::vector<double> d = Finite(differences);
  std::vector<double> averages;
  averages.reserve(d.size() * (d.size() + 1) / 2);
  for (size_t i = 0; i < d.size(); ++i) {
    for (size_t j = i; j < d.size(); ++j) {
      averages.push_back(d[i] / 2 + d[j] / 2);
    }
  }
  std::sort(averages.begin(), averages.end());
  return averages;
}

double MiddleOf(const std::vector<double>& sorted) {
  if (sorted.empty()) return std::numeric_limits<double>::quiet_NaN();
  return Quantile(sorted, 0.5);
}

}  // namespace

int WilcoxonQuantile(int n, double tail) {
  if (n < 1 || !(tail > 0)) return -1;
  const int most = n * (n + 1) / 2;
  if (n > kExact) {
    const double mean = most / 2.0;
    const double sd = std::sqrt(mean * (2.0 * n + 1) / 6);
    const double z = boost::math::quantile(boost::math::normal(), tail);
    return static_cast<int>(std::floor(mean + z * sd - 0.5));
  }
  // ways[t]: the probability that the ranks 1..n, each taken or not, sum to t.
  std::vector<double> ways(static_cast<size_t>(most) + 1, 0.0);
  ways[0] = 1;
  for (int rank = 1; rank <= n; ++rank) {
    for (int t = most; t >= 0; --t) {
      const double taken = t >= rank ? ways[t - rank] : 0;
      ways[t] = (ways[t] + taken) / 2;
    }
  }
  double cumulative = 0;
  int k = -1;
  while (k + 1 <= most) {
    cumulative += ways[k + 1];
    if (cumulative > tail) break;
    ++k;
  }
  return k;
}

double HodgesLehmann(std::span<const double> differences) {
  return MiddleOf(WalshAverages(differences));
}

ConfidenceInterval HodgesLehmannInterval(std::span<const double> differences,
                                         double confidence) {
  const std::vector<double> averages = WalshAverages(differences);
  const auto n = static_cast<int>(Finite(differences).size());
  const int k = WilcoxonQuantile(n, (1 - confidence) / 2);
  const auto most = static_cast<int>(averages.size());
  if (k < 0 || 2 * k >= most - 1) return {};
  return {.low = averages[k], .high = averages[most - k - 1]};
}

double HodgesLehmannShift(std::span<const double> x,
                          std::span<const double> y) {
  const std::vector<double> from = Finite(x);
  const std::vector<double> to = Finite(y);
  std::vector<double> shifts;
  shifts.reserve(from.size() * to.size());
  for (const double a : from) {
    for (const double b : to) shifts.push_back(b - a);
  }
  std::sort(shifts.begin(), shifts.end());
  return MiddleOf(shifts);
}

}  // namespace shardproof
