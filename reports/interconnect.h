// What was found out about the links between ranks: sections "p2p", "fits",
// "crossovers" and "scaling" of result files.
//
// `machine` is where that was, in a report over several machines; it is empty
// elsewhere, and is not in files.
#ifndef SHARDPROOF_REPORTS_INTERCONNECT_H_
#define SHARDPROOF_REPORTS_INTERCONNECT_H_

#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <vector>

#include "reference/status.h"

namespace shardproof {

// One message size (or 0 bytes: latency) between all pairs of ranks.
struct PairMatrix {
  std::string backend = {};
  int ranks = 0;
  int64_t bytes = 0;
  bool bidirectional = false;  // Both directions at the same time.
  // Where each rank runs, as text: "node0 core 1". One entry per rank.
  std::vector<std::string> places = {};
  // Row major [from][to], us for one message; NaN on the diagonal.
  std::vector<double> median_us = {};
  // Links that stand out, with the reason: |z| > 4 within the link's class.
  struct Slow {
    int from = 0, to = 0;
    std::string link_class = {};  // "same node", "between nodes"
    double z = 0, median_us = 0, class_median_us = 0;
    friend bool operator==(const Slow&, const Slow&) = default;
  };
  std::vector<Slow> slow = {};
  // Pairs whose two directions differ beyond noise.
  struct Asymmetry {
    int a = 0, b = 0;
    double a_to_b_us = 0, b_to_a_us = 0;
    friend bool operator==(const Asymmetry&, const Asymmetry&) = default;
  };
  std::vector<Asymmetry> asymmetric = {};
  std::string machine = {};
  friend bool operator==(const PairMatrix&, const PairMatrix&) = default;
};

struct Estimate {
  double value = 0, low = 0, high = 0;  // 95 percent.
  friend bool operator==(const Estimate&, const Estimate&) = default;
};

// time = alpha_count * alpha + beta_bytes * beta + gamma_bytes * gamma, in
// pieces between breakpoints, where protocols switch.
struct Fit {
  std::string case_name = {}, variant = {}, backend = {}, params = {};
  int ranks = 0;
  struct Piece {
    int64_t from_bytes = 0, to_bytes = 0;  // Of the operation, inclusive.
    Estimate alpha_us = {};                // Per message on the longest path.
    Estimate beta_us_per_mib = {};         // Per MiB through one link.
    std::optional<Estimate> gamma_us_per_mib = {};  // Where identifiable.
    int points = 0;
    friend bool operator==(const Piece&, const Piece&) = default;
  };
  std::vector<Piece> pieces = {};
  struct Point {
    int64_t bytes = 0;
    double measured_us = 0, low_us = 0, high_us = 0;  // 95 percent.
    double fitted_us = 0;
    // By alpha, beta and gamma measured on plain messages and reductions, not
    // on this variant; NaN where there is no cost declared.
    double predicted_us = 0;
    friend bool operator==(const Point&, const Point&) = default;
  };
  std::vector<Point> points = {};
  double worst_error = 0, median_error = 0;  // |fitted / measured - 1|.
  double worst_prediction_error = 0, median_prediction_error = 0;
  double half_bandwidth_bytes = 0;  // Where half of the asymptotic rate is had.
  double asymptotic_gbps = 0;       // 1e9 bytes per second.
  std::string machine = {};
  friend bool operator==(const Fit&, const Fit&) = default;
};

// From `bytes` on, `to` is faster than `from`.
struct Crossover {
  std::string case_name = {}, backend = {}, params = {}, from = {}, to = {};
  int ranks = 0;
  double bytes = 0, low = 0, high = 0;  // 95 percent.
  std::string machine = {};
  friend bool operator==(const Crossover&, const Crossover&) = default;
};

struct ScalePoint {
  // "strong": the whole stays, "weak": each rank's share stays,
  // "pairs": `ranks` / 2 pairs exchange at the same time (congestion).
  std::string kind = {}, case_name = {}, variant = {}, backend = {},
              params = {};
  int ranks = 0;
  double median_us = 0, low_us = 0, high_us = 0;
  double ideal_us = 0;    // From the smallest number of ranks.
  double efficiency = 0;  // ideal / median.
  std::string machine = {};
  friend bool operator==(const ScalePoint&, const ScalePoint&) = default;
};

struct Interconnect {
  std::vector<PairMatrix> p2p = {};
  std::vector<Fit> fits = {};
  std::vector<Crossover> crossovers = {};
  std::vector<ScalePoint> scaling = {};
  std::vector<std::string> findings = {};  // Sentences: "the link 0 -> 2 ..."
  bool empty() const {
    return p2p.empty() && fits.empty() && crossovers.empty() &&
           scaling.empty() && findings.empty();
  }
  friend bool operator==(const Interconnect&, const Interconnect&) = default;
};

// The sections as members of one object, and back; unknown members are
// ignored, missing ones are empty.
nlohmann::ordered_json ToJson(const Interconnect& interconnect);
StatusOr<Interconnect> InterconnectFromJson(const nlohmann::ordered_json& json);

}  // namespace shardproof

#endif  // SHARDPROOF_REPORTS_INTERCONNECT_H_
