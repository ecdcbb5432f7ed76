// What the gate can see on one machine: how often it cries wolf, and which
// slow-downs it finds. Measured by `shardproof calibrate`, kept in the history
// and in the section "calibration" of result files.
#ifndef SHARDPROOF_REPORTS_CALIBRATION_H_
#define SHARDPROOF_REPORTS_CALIBRATION_H_

#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

#include "reference/status.h"

namespace shardproof {

struct Calibration {
  std::string machine = {};   // MachineId of the fingerprint.
  std::string measured = {};  // ISO 8601, UTC.
  double seconds = 0;         // How long it took.
  int cases = 0;              // Cases in each launch.
  // Same against same. A false alarm is "regressed" or "improved".
  int null_verdicts = 0, false_alarms = 0;
  double false_alarms_high = 0;  // Share; 95 percent, Clopper-Pearson, above.
  // The 95th percentile of |effect| of same against same, a share: the noise
  // floor that enters the margin.
  double noise = 0;
  struct Power {
    double slowdown = 0;  // 0.05: 5 percent, by a delay in one rank.
    int trials = 0, found = 0;
    double found_low = 0;  // Share; 95 percent, Clopper-Pearson, below.
    double median_effect = 0;
    friend bool operator==(const Power&, const Power&) = default;
  };
  std::vector<Power> power = {};

  friend bool operator==(const Calibration&, const Calibration&) = default;
};

nlohmann::ordered_json ToJson(const Calibration& calibration);
StatusOr<Calibration> CalibrationFromJson(const nlohmann::ordered_json& json);
// "on this machine the gate raises a false alarm in 0.3 percent of verdicts
// (at most 1.2) and finds a slow-down of 5 percent in 98 percent (at least
// 93)"; what to run where there is none.
std::string Sentence(const Calibration& calibration);

}  // namespace shardproof

#endif  // SHARDPROOF_REPORTS_CALIBRATION_H_
