#include "reports/statistics/sign_flip.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <random>
#include <vector>

namespace shardproof {
namespace {

// All 2^n signed sums of `sizes`, sorted.
std::vector<double> SignedSums(std::span<const double> sizes) {
  std::vector<double> sums = {0};
  for (const double size : sizes) {
    const size_t count = sums.size();
    sums.resize(2 * count);
    for (size_t i = 0; i < count; ++i) {
      sums[count + i] = sums[i] + size;
      sums[i] -= size;
    }
  }
  std::sort(sums.begin(), sums.end());
  return sums;
}

// #{(i, j) : a_i + b_j >= least} / (|a| |b|).
double ShareAtLeast(const std::vector<double>& a, const std::vector<double>& b,
                    double least) {
  double count = 0;  // At most 2^30: exact.
  size_t below = b.size();
  for (const double x : a) {
    while (below > 0 && x + b[below - 1] >= least) --below;
    count += static_cast<double>(b.size() - below);
  }
  return count /
         (static_cast<double>(a.size()) * static_cast<double>(b.size()));
}

double Sampled(std::span<const double> sizes, double least, uint64_t seed,
               int samples) {
  std::mt19937_64 random(seed);
  int found = 0;
  for (int i = 0; i < samples; ++i) {
    double sum = 0;
    uint64_t bits = 0;
    for (size_t k = 0; k < sizes.size(); ++k) {
      if (k % 64 == 0) bits = random();
      sum += (bits & 1) != 0 ? sizes[k] : -sizes[k];
      bits >>= 1;
    }
    if (sum >= least) ++found;
  }
  return (1.0 + found) / (1.0 + samples);
}

}  // namespace

double SignFlip(std::span<const double> differences, uint64_t seed,
                int samples) {
  const size_t n = differences.size();
  std::vector<double> sizes;
  double observed = 0;
  double total = 0;
  for (const double d : differences) {
    if (!std::isfinite(d)) return 1;
    sizes.push_back(std::abs(d));
    observed += d;
    total += std::abs(d);
  }
  if (n == 0 || !std::isfinite(total)) return 1;
  // Two sums of n numbers, in any order, each within (n - 1) u sum |d|.
  const double rounding =
      static_cast<double>(n) * std::numeric_limits<double>::epsilon() * total;
  const double least = observed - rounding;
  if (n > kExactSignFlips) return Sampled(sizes, least, seed, samples);
  const std::span<const double> all(sizes);
  return ShareAtLeast(SignedSums(all.first(n / 2)),
                      SignedSums(all.subspan(n / 2)), least);
}

}  // namespace shardproof
