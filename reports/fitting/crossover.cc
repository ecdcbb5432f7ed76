#include "reports/fitting/crossover.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <optional>
#include <random>

#include "reports/statistics/order.h"

namespace shardproof {
namespace {

struct Size {
  double log_bytes = 0;
  const std::vector<double>* first = nullptr;
  const std::vector<double>* second = nullptr;
};

std::vector<Size> Common(std::span<const SizeSamples> first,
                         std::span<const SizeSamples> second) {
  std::vector<Size> out;
  for (const SizeSamples& a : first) {
    for (const SizeSamples& b : second) {
      if (a.bytes != b.bytes || a.bytes <= 0 || a.samples_us.empty() ||
          b.samples_us.empty()) {
        continue;
      }
      out.push_back({std::log(static_cast<double>(a.bytes)), &a.samples_us,
                     &b.samples_us});
    }
  }
  std::ranges::sort(out, {}, &Size::log_bytes);
  return out;
}

double ResampledMedian(const std::vector<double>& samples,
                       std::mt19937_64& random) {
  std::vector<double> drawn(samples.size());
  for (double& d : drawn) d = samples[random() % samples.size()];
  return MedianOrNaN(std::move(drawn));
}

double Percentile(std::vector<double> sorted, double q) {
  const double at = q * static_cast<double>(sorted.size() - 1);
  const auto low = static_cast<size_t>(at);
  const size_t high = std::min(low + 1, sorted.size() - 1);
  return sorted[low] +
         (at - static_cast<double>(low)) * (sorted[high] - sorted[low]);
}

// Where the line through the differences first has the sign of the last one,
// between sizes low and high.
std::optional<double> Place(const std::vector<Size>& sizes,
                            const std::vector<double>& difference, size_t low,
                            size_t high, bool rises) {
  for (size_t i = low; i < high; ++i) {
    const double from = rises ? difference[i] : -difference[i];
    const double to = rises ? difference[i + 1] : -difference[i + 1];
    if (from > 0 || to <= 0) continue;
    const double part = from / (from - to);
    return sizes[i].log_bytes +
           part * (sizes[i + 1].log_bytes - sizes[i].log_bytes);
  }
  return std::nullopt;
}

}  // namespace

double MedianOrNaN(std::vector<double> values) {
  return values.empty() ? std::numeric_limits<double>::quiet_NaN()
                        : Median(std::move(values));
}

std::vector<Crossing> Crossings(std::span<const SizeSamples> first,
                                std::span<const SizeSamples> second,
                                uint64_t seed) {
  const std::vector<Size> sizes = Common(first, second);
  std::mt19937_64 random(seed);
  // ln(first / second) at each size, by resample.
  std::vector<std::vector<double>> resamples(kResamples);
  for (std::vector<double>& differences : resamples) {
    for (const Size& size : sizes) {
      differences.push_back(std::log(ResampledMedian(*size.first, random) /
                                     ResampledMedian(*size.second, random)));
    }
  }
  std::vector<Crossing> crossings;
  std::optional<size_t> before;  // The last size with a sign.
  bool before_positive = false;
  for (size_t i = 0; i < sizes.size(); ++i) {
    std::vector<double> here;
    for (const auto& differences : resamples) here.push_back(differences[i]);
    std::ranges::sort(here);
    const bool positive = Percentile(here, 0.025) > 0;
    if (!positive && !(Percentile(here, 0.975) < 0)) continue;
    if (before.has_value() && positive != before_positive) {
      std::vector<double> places;
      for (const auto& differences : resamples) {
        const auto place = Place(sizes, differences, *before, i, positive);
        if (place.has_value()) places.push_back(*place);
      }
      std::ranges::sort(places);
      if (!places.empty()) {
        crossings.push_back(
            {.bytes = {.value = std::exp(Percentile(places, 0.5)),
                       .low = std::exp(Percentile(places, 0.025)),
                       .high = std::exp(Percentile(places, 0.975))},
             .second_wins = positive});
      }
    }
    before = i;
    before_positive = positive;
  }
  return crossings;
}

}  // namespace shardproof
