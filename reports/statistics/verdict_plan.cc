#include "reports/statistics/verdict_plan.h"

#include <algorithm>
#include <boost/math/distributions/students_t.hpp>
#include <cmath>

#include "reports/statistics/students_t.h"

namespace shardproof {
namespace {

// The smallest n in [2, most] for which `enough`. Trimming loses a degree of
// freedom where n = 5, 10, ..., so it is no matter of halving intervals.
template <class Enough>
std::optional<int> Smallest(int most, Enough enough) {
  if (most < 2 || !enough(most)) return std::nullopt;
  int n = 2;
  while (!enough(n)) ++n;
  return n;
}

double Degrees(const Plan& plan, int n, const Rules& rules) {
  return static_cast<double>(plan.degrees_per_count) *
         (KeptOf(n, rules.trim) - 1);
}

double Error(const Plan& plan, int n, const Rules& rules) {
  return plan.sd * ErrorPerSpread(n, rules.trim);
}

std::optional<int> ForDifference(const Plan& plan, double p,
                                 const Rules& rules) {
  return Smallest(rules.most_pairs, [&](int n) {
    const double t = std::abs(plan.mean) / Error(plan, n, rules);
    const boost::math::students_t distribution(Degrees(plan, n, rules));
    return boost::math::cdf(boost::math::complement(distribution, t)) < p;
  });
}

std::optional<int> ForEquivalence(const Plan& plan, const Rules& rules) {
  const double room = std::log1p(rules.equivalence) - std::abs(plan.mean);
  if (room <= 0) return std::nullopt;
  return Smallest(rules.most_pairs, [&](int n) {
    return TQuantile(Degrees(plan, n, rules), 0.95) * Error(plan, n, rules) <=
           room;
  });
}

}  // namespace

double ErrorPerSpread(int n, double trim) {
  const double h = KeptOf(n, trim);
  return std::sqrt((n - 1) / (h * (h - 1)));
}

std::optional<int> MoreToDecide(const Plan& plan, const Rules& rules) {
  if (!(plan.sd > 0) || !std::isfinite(plan.sd)) return std::nullopt;
  std::optional<int> best;
  const auto consider = [&](int more) {
    best = std::min(best.value_or(more), std::max(1, more));
  };
  if (const auto n = ForEquivalence(plan, rules)) consider(*n - plan.taken);
  if (std::abs(plan.mean) > std::log1p(plan.margin)) {
    const auto n = ForDifference(plan, plan.p_wanted, rules);
    if (n.has_value() && !plan.screened_only) consider(*n - plan.taken);
    if (n.has_value() && plan.screened_only) {
      const auto screened = ForDifference(plan, rules.screen_p, rules);
      if (screened.has_value()) {
        consider(std::max(0, *screened - plan.taken) +
                 std::max(rules.fresh_pairs, *n));
      }
    }
  }
  return best;
}

}  // namespace shardproof
