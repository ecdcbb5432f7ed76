// From launches to verdicts: the rules of the gate, as pure functions.
//
// Stage 1 screens every case with pairs of launches (base, candidate), next to
// each other in time: d_i = ln(cand_i) - ln(base_i). A case is suspect where
// the one-sided t test has p < screen_p and the mean is beyond screen_effect,
// or where the mean is beyond screen_alone, whatever its p; in either
// direction. Stage 2 measures the suspects again, with fresh pairs, and only
// those decide:
//
//     mean, t     of d without a fifth (trim) at each end: one launch that is far
//                 off would double a mean, and hide any change in its spread
//     margin      max(least_margin, noise of the machine, least_margin_us / base)
//     p           one-sided, for the direction that the screening found
//     adjusted p  Benjamini-Hochberg over all screened cases; whatever did not
//                 get to stage 2, or turned round in it, counts as p = 1
//
//     invalid       the caller says why, or times that no clock gives
//     regressed     adjusted p < alpha and mean(d) >  ln(1 + margin)
//     improved      the mirror:          mean(d) < -ln(1 + margin)
//     equivalent    the 90 percent interval lies within +-ln(1 + equivalence)
//     inconclusive  and how many more pairs would decide, if the effect and its
//                   spread stay what they are
//
// The mirror is exact: with base and candidate swapped, "regressed" becomes
// "improved" and the other verdicts stay.
//
//     CaseLaunches c{.identity = {.key = KeyOf(record), ...}};
//     c.screen_base = ..., c.screen_cand = ...;     // us, medians of launches
//     if (Suspect(c, rules)) c.fresh_base = ..., c.fresh_cand = ...;
//     const std::vector<Comparison> all = Judge({&c, 1}, rules, noise);
//
// Whoever asks for more pairs until the verdict pleases has another test than
// this one: `more_pairs` is for one decision in advance.
#ifndef SHARDPROOF_REPORTS_STATISTICS_VERDICT_H_
#define SHARDPROOF_REPORTS_STATISTICS_VERDICT_H_

#include <span>
#include <string>
#include <vector>

#include "reports/comparison.h"

namespace shardproof {

struct Rules {
  int screen_pairs = 5, fresh_pairs = 10;
  double screen_p = 0.10, screen_effect = 0.01, screen_alone = 0.03;
  double trim = 0.2;  // As in students_t.h, in both stages.
  double alpha = 0.05;
  double least_margin = 0.02, least_margin_us = 0.5;
  double equivalence = 0.05;
  // Launches on each side, of launches that are not paired.
  int least_unpaired = 3;
  // More pairs than these are not advised.
  int most_pairs = 1000;
  friend bool operator==(const Rules&, const Rules&) = default;
};

// One case, in every launch of both arms.
struct CaseLaunches {
  // key, case_name, variant, backend, params, ranks and repro; what else is in
  // it is overwritten.
  Comparison identity = {};
  // Medians of launches, us. base[i] and cand[i] are a pair.
  std::vector<double> screen_base = {}, screen_cand = {};
  std::vector<double> fresh_base = {}, fresh_cand = {};
  double seconds_per_pair = 0;  // 0: not known.
  // Not empty: why the measurements cannot be used (throttled, the environment
  // changed, wrong results, no baseline).
  std::string invalid = {};
};

// delta, a share. `noise` is Calibration::noise, 0 where there is none. NaN
// where base_us is no time.
double Margin(const Rules& rules, double noise, double base_us);

// Whether the case goes on to the second stage.
bool Suspect(const CaseLaunches& launches, const Rules& rules);

// One Comparison for each case, in their order.
std::vector<Comparison> Judge(std::span<const CaseLaunches> cases,
                              const Rules& rules, double noise);

// One case of which the launches are no pairs: a baseline kept from earlier.
struct UnpairedLaunches {
  Comparison identity = {};                  // As in CaseLaunches.
  std::vector<double> base = {}, cand = {};  // Medians of launches, us.
  double seconds_per_launch = 0;             // 0: not known.
  std::string invalid = {};                  // As in CaseLaunches.
};

// The same verdicts by Welch's t test of ln(times), trimmed as well. There is no screening, so
// the direction is chosen by the same data that test it: twice the one-sided p
// goes into Benjamini-Hochberg. With fewer than least_unpaired launches on a
// side it is inconclusive and says so: launches differ by more than their
// samples show. What differs between two days is in no launch of either, and
// only the noise of the margin can stand for it. In the Comparison base_launches
// and cand_launches are then no pairs, and may differ in number; `pairs` is 0
// and `more_pairs` counts launches of each side.
std::vector<Comparison> JudgeUnpaired(std::span<const UnpairedLaunches> cases,
                                      const Rules& rules, double noise);

}  // namespace shardproof

#endif  // SHARDPROOF_REPORTS_STATISTICS_VERDICT_H_
