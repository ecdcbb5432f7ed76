// What the comparison of two builds, libraries or machines says about one case.
//
//     effect = mean over pairs of  ln(median candidate) - ln(median base)
//
// given as a share: 0.05 is 5 percent slower. The unit is a launch (fresh
// processes), never an iteration. Result files hold these in the section
// "comparisons".
#ifndef SHARDPROOF_REPORTS_COMPARISON_H_
#define SHARDPROOF_REPORTS_COMPARISON_H_

#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "reference/status.h"

namespace shardproof {

// In the order in which they are decided.
enum class Change {
  kInvalid,       // Throttled, another machine, no baseline.
  kRegressed,     // Adjusted p < 0.05 and the effect is above the margin.
  kImproved,      // The mirror of it.
  kEquivalent,    // The 90 percent interval lies within +-5 percent.
  kInconclusive,  // And what would decide.
};
// "invalid", "regressed", "improved", "equivalent", "inconclusive".
std::string_view Name(Change change);
StatusOr<Change> ParseChange(std::string_view name);

struct Comparison {
  std::string key = {};  // KeyOf(record).
  std::string case_name = {}, variant = {}, backend = {}, params = {};
  int ranks = 1;
  Change change = Change::kInvalid;
  std::string reason = {};  // One sentence for a person; never empty.

  // Medians of the launches' medians, us.
  double base_us = 0, cand_us = 0;
  // Shares, as exp(mean d) - 1: of the pairs that decided.
  double effect = 0;
  double interval_low = 0, interval_high = 0;  // 95 percent, Student's t.
  double hodges_lehmann = 0;
  // One-sided for "slower" or "faster", whichever the effect says: Student's t,
  // the exact sign-flip test, and the first after Benjamini-Hochberg.
  double p = 1, sign_flip_p = 1, adjusted_p = 1;
  double margin = 0;     // delta: effects below are of no interest.
  bool suspect = false;  // Went on to the second stage.
  int screened_pairs = 0, pairs = 0;  // First stage; those that decided.
  // Where inconclusive: what would decide.
  std::optional<int> more_pairs = {};
  std::optional<double> more_seconds = {};
  // Medians of every launch in the order of time, us: base_launches[i] and
  // cand_launches[i] are a pair. Screening first, then the fresh pairs.
  std::vector<double> base_launches = {}, cand_launches = {};
  std::string repro = {};  // A command line that measures it again.

  friend bool operator==(const Comparison&, const Comparison&) = default;
};

nlohmann::ordered_json ToJson(const Comparison& comparison);
StatusOr<Comparison> ComparisonFromJson(const nlohmann::ordered_json& json);

}  // namespace shardproof

#endif  // SHARDPROOF_REPORTS_COMPARISON_H_
