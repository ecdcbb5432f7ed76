#include "reports/statistics/e_divisive.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <random>
#include <utility>

#include "reports/statistics/order.h"

namespace shardproof {
namespace {

using Series = std::vector<double>;

struct Segment {
  size_t begin = 0, end = 0;
  size_t size() const { return end - begin; }
};

struct Division {
  double statistic = -1;  // -1: too short to be divided.
  size_t at = 0;          // Relative to the segment.
};

// The largest Q over (t, k) of one segment. With
//
//     S(k)        sum of |x_i - x_j| over i < j < k
//     cross(t, k) sum of |x_i - x_j| over i < t <= j < k
//
// the pairs within [t, k) sum to S(k) - S(t) - cross(t, k). from_left[j] is the
// sum of |x_i - x_j| over i < t, and cross grows by it as k does.
class Divider {
 public:
  explicit Divider(size_t least) : least_(least) {}

  Division Best(std::span<const double> x) {
    const size_t n = x.size();
    Division best;
    if (n < 2 * least_) return best;
    sums_.assign(n + 1, 0.0);
    for (size_t j = 1; j < n; ++j) {
      double to_earlier = 0;
      for (size_t i = 0; i < j; ++i) to_earlier += std::abs(x[i] - x[j]);
      sums_[j + 1] = sums_[j] + to_earlier;
    }
    from_left_.assign(n, 0.0);
    for (size_t t = 1; t + least_ <= n; ++t) {
      for (size_t j = t; j < n; ++j) from_left_[j] += std::abs(x[t - 1] - x[j]);
      if (t >= least_) BestEnd(t, n, best);
    }
    return best;
  }

 private:
  void BestEnd(size_t t, size_t n, Division& best) const {
    const auto left = static_cast<double>(t);
    const double within_left = 2 * sums_[t] / (left * (left - 1));
    double cross = 0;
    for (size_t k = t + 1; k <= n; ++k) {
      cross += from_left_[k - 1];
      if (k - t < least_) continue;
      const auto right = static_cast<double>(k - t);
      const double within_right =
          2 * (sums_[k] - sums_[t] - cross) / (right * (right - 1));
      const double energy =
          2 * cross / (left * right) - within_left - within_right;
      const double q = left * right / (left + right) * energy;
      if (q > best.statistic) best = {.statistic = q, .at = t};
    }
  }

  size_t least_;
  std::vector<double> sums_, from_left_;
};

void Shuffle(std::span<double> values, std::mt19937_64& random) {
  for (size_t i = values.size(); i > 1; --i) {
    std::swap(values[i - 1], values[random() % i]);
  }
}

// What two ways of adding up the same Q can differ by: three means of at most
// n^2 / 2 terms below `spread`, times at most n / 4.
double Rounding(std::span<const double> x) {
  const auto [low, high] = std::minmax_element(x.begin(), x.end());
  const auto n = static_cast<double>(x.size());
  return n * n * n / 2 * std::numeric_limits<double>::epsilon() *
         (*high - *low);
}

// p of the largest Q that permutations within segments give; 1 as soon as it
// cannot be below alpha.
double PermutationP(double statistic, const Series& series,
                    const std::vector<Segment>& segments,
                    const EDivisiveOptions& options, std::mt19937_64& random,
                    Divider& divider) {
  const double least = statistic - Rounding(series);
  const double all = options.permutations + 1.0;
  Series permuted = series;
  int found = 1;
  for (int i = 0; i < options.permutations; ++i) {
    for (const Segment& s : segments) {
      const std::span<double> part =
          std::span(permuted).subspan(s.begin, s.size());
      Shuffle(part, random);
      if (divider.Best(part).statistic >= least) {
        ++found;
        break;
      }
    }
    if (found / all >= options.alpha) return 1;
  }
  return found / all;
}

double MedianOf(std::span<const double> values) {
  return Median(std::vector<double>(values.begin(), values.end()));
}

}  // namespace

std::vector<ChangePoint> EDivisive(std::span<const double> times,
                                   const EDivisiveOptions& options) {
  std::vector<size_t> index;
  Series series;
  for (size_t i = 0; i < times.size(); ++i) {
    if (!std::isfinite(times[i]) || times[i] <= 0) continue;
    index.push_back(i);
    series.push_back(std::log(times[i]));
  }
  if (series.size() > kMostChangePointValues) {
    const auto extra =
        static_cast<ptrdiff_t>(series.size() - kMostChangePointValues);
    index.erase(index.begin(), index.begin() + extra);
    series.erase(series.begin(), series.begin() + extra);
  }
  Divider divider(static_cast<size_t>(std::max(2, options.least)));
  std::mt19937_64 random(options.seed);
  std::vector<Segment> segments = {{0, series.size()}};
  std::vector<ChangePoint> changes;
  for (;;) {
    Division best;
    size_t which = 0;
    for (size_t i = 0; i < segments.size(); ++i) {
      const Segment& s = segments[i];
      const Division d =
          divider.Best(std::span(series).subspan(s.begin, s.size()));
      if (d.statistic > best.statistic) {
        best = d;
        which = i;
      }
    }
    if (best.statistic < 0) break;
    const double p = PermutationP(best.statistic, series, segments, options,
                                  random, divider);
    if (!(p < options.alpha)) break;
    const Segment whole = segments[which];
    const size_t at = whole.begin + best.at;
    segments[which].end = at;
    segments.insert(segments.begin() + static_cast<ptrdiff_t>(which) + 1,
                    {at, whole.end});
    changes.push_back({.first = at, .p = p, .statistic = best.statistic});
  }
  std::sort(changes.begin(), changes.end(),
            [](const ChangePoint& a, const ChangePoint& b) {
              return a.first < b.first;
            });
  // The i-th change is between the segments i and i + 1.
  for (size_t i = 0; i < changes.size(); ++i) {
    const auto median = [&](const Segment& s) {
      return MedianOf(std::span(series).subspan(s.begin, s.size()));
    };
    changes[i].effect =
        std::expm1(median(segments[i + 1]) - median(segments[i]));
    changes[i].first = index[changes[i].first];
  }
  return changes;
}

}  // namespace shardproof
