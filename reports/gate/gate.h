// Whether a change may pass: from results, a baseline, what the comparison of
// the two says, and a policy.
//
//     const GateOutcome outcome = Evaluate(policy, {.candidate = launches,
//         .baseline = earlier, .comparisons = compared, .today = UtcNow()});
//     return outcome.exit_code;
//
// Contract: a function of its arguments and of nothing else. It fails closed:
// what is not known is not a pass.
//
//     1    a result is incorrect or suspect
//     124  a case hung
//     6    a case failed: crash, error, or a case that cannot see mistakes
//     5    a launch is incomplete; nothing passed; a key of the baseline or a
//          required one has no result that passed; a time is not a number; a
//          comparison is invalid or missing; more than one machine
//     3    a confirmed slow-down
//     4    inconclusive, where the policy asks for it
//     0    none of these
//
// The code is that of the first line that holds. Records and comparisons that
// the policy does not select are not looked at. `unsupported` and `not_built`
// are neither a pass nor a failure.
//
// A quarantined finding is listed and does not count; wrong results first of
// all, so that nobody forgets them. A quarantine applies through the day on
// which it expires, and not at all while that is more than kMostQuarantineDays
// ahead: whoever wants more time has to say so again. Findings about a whole
// launch, and required keys, cannot be quarantined.
#ifndef SHARDPROOF_REPORTS_GATE_GATE_H_
#define SHARDPROOF_REPORTS_GATE_GATE_H_

#include <span>
#include <string>

#include "reports/comparison.h"
#include "reports/gate/policy.h"
#include "reports/report.h"

namespace shardproof {

inline constexpr int kMostQuarantineDays = 90;

struct GateInput {
  std::span<const Launch> candidate = {};
  // Empty: nobody asked for a comparison, and only correctness is judged.
  std::span<const Launch> baseline = {};
  std::span<const Comparison> comparisons = {};
  std::string today = {};  // ISO 8601; from the eleventh character on unused.
};

GateOutcome Evaluate(const Policy& policy, const GateInput& input);

}  // namespace shardproof

#endif  // SHARDPROOF_REPORTS_GATE_GATE_H_
