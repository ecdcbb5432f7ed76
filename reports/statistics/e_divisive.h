// Where a series of measurements changed its distribution: E-divisive.
//
// For samples X (n) and Y (m), with x' an independent copy of x, the energy
// statistic with alpha = 1 is
//
//     E(X, Y) = 2 mean|x - y| - mean|x - x'| - mean|y - y'|      (pairs i < k)
//     Q(X, Y) = n m / (n + m) E(X, Y)
//
// One division of a segment is the (t, k) with the largest Q between [first, t)
// and [t, k), at least `least` points on each side; that k may end before the
// segment does is what finds a bump. Of all segments the largest Q is tried: the
// points are permuted within every segment, and p is the share of permutations
// (ours among them) with a Q as large. While p < alpha the series is divided
// there, and it starts again.
//
//     for (const ChangePoint& c : EDivisive(history_us)) {
//       history_us[c.first]  // The first after the change.
//       c.effect             // 0.05: 5 percent slower than the segment before
//     }
//
// The values are times: their logarithms are compared, so that a change is a
// share. Values that are no times (not finite, not above 0) are left out, and
// indices are those of the series with them. The result is a function of values
// and options; sorted by `first`. Shorter series than 2 * least have none.
//
// Time is permutations * n^2 / 2 for each division: 200 points take some
// milliseconds, 1000 half a second. Of more than kMostChangePointValues values
// only the last ones are looked at.
//
// Source: Matteson and James, A nonparametric approach for multiple change point
// analysis of multivariate data, JASA 109, 2014, sections 2.2 to 2.4.
#ifndef SHARDPROOF_REPORTS_STATISTICS_E_DIVISIVE_H_
#define SHARDPROOF_REPORTS_STATISTICS_E_DIVISIVE_H_

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

namespace shardproof {

inline constexpr size_t kMostChangePointValues = 1000;

struct EDivisiveOptions {
  int least = 4;        // Points on each side of a change; at least 2.
  double alpha = 0.05;  // p below is a change.
  int permutations = 199;
  uint64_t seed = 1;
};

struct ChangePoint {
  size_t first = 0;      // Index of the first value after the change.
  double p = 1;          // When it was found; at least 1 / (permutations + 1).
  double statistic = 0;  // Q.
  // Median of the segment after over that of the segment before, less 1.
  double effect = 0;
  friend bool operator==(const ChangePoint&, const ChangePoint&) = default;
};

std::vector<ChangePoint> EDivisive(std::span<const double> times,
                                   const EDivisiveOptions& options = {});

}  // namespace shardproof

#endif  // SHARDPROOF_REPORTS_STATISTICS_E_DIVISIVE_H_
