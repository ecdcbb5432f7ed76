#include "reports/statistics/verdict_plan.h"

#include <algorithm>
#include <boost/math/distributions/students_t.hpp>
#include <cmath>

#include "reports/statistics/students_t.h"

namespace shardproof {
namespace {

// The smallest n in [2, most] for which `enough`, which stays true once it is.
template <class Enough>
std::optional<int> Smallest(int most, Enough enough) {
  if (most < 2 || !enough(most)) return std::nullopt;
  int low = 2;
  int high = most;
  while (low < high) {
    const int middle = low + (high - low) / 2;
    if (enough(middle)) {
      high = middle;
    } else {
      low = middle + 1;
    }
  }
  return low;
}

double Degrees(const Plan& plan, int n) {
  return static_cast<double>(plan.degrees_per_count) * (n - 1);
}

std::optional<int> ForDifference(const Plan& plan, double p, int most) {
  return Smallest(most, [&](int n) {
    const double t = std::abs(plan.mean) * std::sqrt(n) / plan.sd;
    const boost::math::students_t distribution(Degrees(plan, n));
    return boost::math::cdf(boost::math::complement(distribution, t)) < p;
  });
}

std::optional<int> ForEquivalence(const Plan& plan, const Rules& rules) {
  const double room = std::log1p(rules.equivalence) - std::abs(plan.mean);
  if (room <= 0) return std::nullopt;
  return Smallest(rules.most_pairs, [&](int n) {
    return TQuantile(Degrees(plan, n), 0.95) * plan.sd / std::sqrt(n) <= room;
  });
}

}  // namespace

std::optional<int> MoreToDecide(const Plan& plan, const Rules& rules) {
  if (!(plan.sd > 0) || !std::isfinite(plan.sd)) return std::nullopt;
  std::optional<int> best;
  const auto consider = [&](int more) {
    best = std::min(best.value_or(more), std::max(1, more));
  };
  if (const auto n = ForEquivalence(plan, rules)) consider(*n - plan.taken);
  if (std::abs(plan.mean) > std::log1p(plan.margin)) {
    const auto n = ForDifference(plan, plan.p_wanted, rules.most_pairs);
    if (n.has_value() && !plan.screened_only) consider(*n - plan.taken);
    if (n.has_value() && plan.screened_only) {
      const auto screened =
          ForDifference(plan, rules.screen_p, rules.most_pairs);
      if (screened.has_value()) {
        consider(std::max(0, *screened - plan.taken) +
                 std::max(rules.fresh_pairs, *n));
      }
    }
  }
  return best;
}

}  // namespace shardproof
