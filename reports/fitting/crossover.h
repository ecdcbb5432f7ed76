// From which size on one algorithm is faster than another.
//
//     for (const Crossing& c : Crossings(ring, doubling, seed)) { c.bytes.low }
//
// Between sizes, ln(time) is a line over ln(bytes). A crossing lies between two
// measured sizes at which the two differ beyond noise, with opposite signs: the
// 95 percent interval of ln(a / b) excludes 0, by the bootstrap over samples
// (medians of kResamples resamples, percentiles). Its place is the median of
// those of the resamples, its interval their 2.5 and 97.5 percentiles.
// Samples of one size are taken to be independent of one another.
// Source: Efron and Tibshirani, An Introduction to the Bootstrap, 1993,
// chapter 13.
#ifndef SHARDPROOF_REPORTS_FITTING_CROSSOVER_H_
#define SHARDPROOF_REPORTS_FITTING_CROSSOVER_H_

#include <cstdint>
#include <span>
#include <vector>

#include "reports/interconnect.h"

namespace shardproof {

inline constexpr int kResamples = 1000;

struct SizeSamples {
  int64_t bytes = 0;  // Above 0; others are left out.
  std::vector<double> samples_us = {};
};

struct Crossing {
  Estimate bytes = {};
  bool second_wins = false;  // From `bytes` on; else the first does.
  friend bool operator==(const Crossing&, const Crossing&) = default;
};

// In the order of size. Sizes that only one of the two has are left out.
std::vector<Crossing> Crossings(std::span<const SizeSamples> first,
                                std::span<const SizeSamples> second,
                                uint64_t seed);

// Of values in any order; NaN where there are none.
double MedianOrNaN(std::vector<double> values);

}  // namespace shardproof

#endif  // SHARDPROOF_REPORTS_FITTING_CROSSOVER_H_
