// Everything that a report shows, put together from result files, comparisons
// and the history, before it is written as HTML, JUnit, CSV, OpenMetrics,
// a step summary or a Chrome trace.
#ifndef SHARDPROOF_REPORTS_REPORT_H_
#define SHARDPROOF_REPORTS_REPORT_H_

#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "reports/calibration.h"
#include "reports/comparison.h"
#include "reports/fingerprint.h"
#include "reports/interconnect.h"
#include "reports/record.h"

namespace shardproof {

// One result file: one launch.
struct Launch {
  std::string name = {};     // The file, for people.
  std::string command = {};  // shardproof's arguments.
  std::string started = {}, finished = {};
  bool complete = false, interrupted = false;
  std::vector<std::string> left_out = {};  // What did not run, and why.
  Fingerprint fingerprint = {};
  Conditions before = {}, after = {};
  std::vector<Record> records = {};
};

// What the gate says of the whole.
struct GateOutcome {
  int exit_code = 0;
  std::string headline = {};  // "FAILED: 2 wrong results, 1 slow-down"
  struct Finding {
    std::string key = {};
    // "incorrect", "failed", "regressed", "invalid", "missing", "inconclusive".
    std::string kind = {};
    std::string reason = {}, repro = {};
    bool quarantined = false;
    std::string quarantine = {};  // "owner: reason, until 2026-12-01"
  };
  std::vector<Finding> findings = {};
  std::vector<std::string> notes = {};  // Expired quarantines, the policy used.
};

// One key over time.
struct History {
  std::string key = {}, machine = {};
  struct Point {
    std::string started = {}, label = {}, binary = {}, epoch = {};
    double median_us = 0;
    double worst_ratio = 0;  // Error over bound: numerical drift.
    bool passed = true;
  };
  std::vector<Point> points = {};  // In the order of time.
  struct Epoch {
    size_t first = 0;        // Index of a point.
    std::string label = {};  // "Open MPI 4.1.4 -> 4.1.5"
  };
  std::vector<Epoch> epochs = {};
  struct ChangePoint {
    size_t first = 0;          // The first point after the change.
    double effect = 0, p = 1;  // A share, as in Comparison.
  };
  std::vector<ChangePoint> changes = {};
};

// Which rank holds which block of every tensor of a case, and what moves.
struct ShardDiagram {
  std::string case_name = {}, variant = {}, what = {};
  int ranks = 0;
  std::string params = {};
  struct Tensor {
    std::string name = {}, dtype = {}, sharding = {};
    bool input = true;
    std::vector<int64_t> shape = {};
    // [rank][dimension] -> ranges [begin, end) of the whole tensor.
    std::vector<std::vector<std::vector<std::pair<int64_t, int64_t>>>> blocks =
        {};
  };
  std::vector<Tensor> tensors = {};
  struct Step {
    int number = 1;
    std::string operation = {}, kind = {};  // "all_reduce/ring", "message"
    struct Transfer {
      int from = 0, to = 0;
      int64_t bytes = 0, messages = 0;
    };
    std::vector<Transfer> transfers = {};
  };
  std::vector<Step> steps = {};
  std::string note = {};  // What the picture does not show; may be empty.
};

struct Report {
  std::string title = "Shardproof";
  std::string written = {};  // ISO 8601, UTC.
  std::vector<Launch> launches = {};
  std::vector<Comparison> comparisons = {};
  std::optional<Fingerprint> base_fingerprint = {};  // Of the comparisons.
  std::optional<GateOutcome> gate = {};
  std::vector<History> histories = {};
  Interconnect interconnect = {};
  std::optional<Calibration> calibration = {};
  std::vector<ShardDiagram> diagrams = {};
};

// What tells machines apart for people, one for each launch: the host's name,
// or, where two machines have the same, that and MachineId. The names of
// launches of one machine are equal.
std::vector<std::string> MachineNames(const std::vector<Launch>& launches);

// Whether they are of more than one.
bool OfSeveralMachines(const std::vector<Launch>& launches);

}  // namespace shardproof

#endif  // SHARDPROOF_REPORTS_REPORT_H_
