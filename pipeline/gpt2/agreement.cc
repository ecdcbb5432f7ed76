#include "pipeline/gpt2/agreement.h"

#include <algorithm>
#include <cmath>

#include "reference/bounded.h"
#include "reference/probe.h"

namespace shardproof::gpt2 {
namespace {

// What is not a number exceeds all numbers, and nothing exceeds it.
bool Exceeds(double x, double y) { return !std::isnan(y) && !(x <= y); }

}  // namespace

std::vector<double> AllowedDifferences(
    std::span<const double> single,
    std::span<const std::vector<double>> neighbours, double population) {
  const auto runs = static_cast<double>(neighbours.size());
  const double factor =
      ProbedLambda(Lambda(population), static_cast<int>(neighbours.size()));
  std::vector<double> allowed(single.size(), HUGE_VAL);
  for (size_t t = 0; t < single.size() && !neighbours.empty(); ++t) {
    double squares = 0;
    for (const std::vector<double>& run : neighbours) {
      squares += (run[t] - single[t]) * (run[t] - single[t]);
    }
    allowed[t] = factor * std::sqrt(squares / runs);
  }
  return allowed;
}

Agreement Compare(std::span<const double> curve, std::span<const double> single,
                  std::span<const double> allowed) {
  Agreement agreement;
  agreement.equal = curve.size() == single.size();
  for (size_t t = 0; t < std::min(curve.size(), single.size()); ++t) {
    const double difference = std::abs(curve[t] - single[t]);
    // So that what is not a number is neither equal nor overlooked.
    const bool within = difference <= allowed[t];
    agreement.equal = agreement.equal && within;
    if (Exceeds(difference, agreement.largest)) {
      agreement.largest = difference;
      agreement.step = t;
    }
    if (difference == 0) continue;
    const double share = difference / allowed[t];
    if (Exceeds(share, agreement.share)) agreement.share = share;
  }
  return agreement;
}

}  // namespace shardproof::gpt2
