#include "reports/statistics/benjamini_hochberg.h"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <numeric>

namespace shardproof {

std::vector<double> BenjaminiHochberg(std::span<const double> p) {
  std::vector<double> adjusted(p.begin(), p.end());
  for (double& value : adjusted) {
    value = std::isnan(value) ? 1 : std::clamp(value, 0.0, 1.0);
  }
  std::vector<size_t> order(p.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::sort(order.begin(), order.end(),
            [&](size_t a, size_t b) { return adjusted[a] < adjusted[b]; });
  const auto m = static_cast<double>(p.size());
  double least = 1;
  for (size_t i = order.size(); i > 0; --i) {
    double& value = adjusted[order[i - 1]];
    least = std::min(least, m * value / static_cast<double>(i));
    value = least;
  }
  return adjusted;
}

}  // namespace shardproof
