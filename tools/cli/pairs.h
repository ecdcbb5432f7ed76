// Two arms (base and candidate) measured in adjacent pairs of launches, in two
// stages: a few pairs screen everything, fresh pairs decide on what looked
// suspect (reports/statistics/verdict.h says why).
//
// The order within each pair (who is first, and whose turn is first) is drawn
// from the seed, so that a machine that warms up or slows down favours neither
// arm.
#ifndef SHARDPROOF_TOOLS_CLI_PAIRS_H_
#define SHARDPROOF_TOOLS_CLI_PAIRS_H_

#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <vector>

#include "reference/status.h"
#include "reports/report.h"
#include "reports/statistics/verdict.h"
#include "tools/cli/launch.h"

namespace shardproof {

struct PairedRun {
  LaunchRequest base = {}, cand = {};
  Rules rules = {};
  double noise = 0;        // Of the calibration, a share; 0: none.
  uint64_t seed = 1;       // Of the order within pairs.
  double time_budget = 0;  // Seconds; 0: none.
  // The launches of a pair take turns of so many seconds, where both can; 0:
  // one is launched after the other.
  double turn_seconds = 0;
  // Called before each launch, for people who wait.
  std::function<void(const std::string& stage, int done, int all)> progress =
      nullptr;
};

struct PairedOutcome {
  std::vector<Comparison> comparisons = {};  // Sorted by key.
  Fingerprint base = {}, cand = {};
  // What did not pass, once for each key, of the candidate and of the base.
  std::vector<Record> wrong = {}, wrong_base = {};
  std::vector<std::string> notes = {};
  // Of the candidate's first launch of each stage, for reports.
  std::vector<Record> records = {};
  double seconds = 0;
  bool out_of_time = false, interrupted = false;
};

// What a comparison is of: the members that say so, with a command line that
// measures it again.
Comparison IdentityOf(const Record& record);

// Errors: those of RunLaunch, of the first launch that fails. An interrupt is
// none: what was measured until then is judged.
StatusOr<PairedOutcome> RunPairs(const PairedRun& run);

}  // namespace shardproof

#endif  // SHARDPROOF_TOOLS_CLI_PAIRS_H_
