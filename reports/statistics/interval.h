// A confidence interval.
#ifndef SHARDPROOF_REPORTS_STATISTICS_INTERVAL_H_
#define SHARDPROOF_REPORTS_STATISTICS_INTERVAL_H_

#include <limits>

namespace shardproof {

// Nothing is known by default, which is what too little data gives.
struct ConfidenceInterval {
  double low = -std::numeric_limits<double>::infinity();
  double high = std::numeric_limits<double>::infinity();
  // Closed: low <= x <= high. False for NaN.
  bool Contains(double x) const { return low <= x && x <= high; }
  friend bool operator==(const ConfidenceInterval&,
                         const ConfidenceInterval&) = default;
};

}  // namespace shardproof

#endif  // SHARDPROOF_REPORTS_STATISTICS_INTERVAL_H_
