// A result file as a report sees it: the launch, and whatever else the command
// that wrote it found out.
//
//     SP_ASSIGN_OR_RETURN(LoadedLaunch loaded, ReadLaunch("results.json"));
//
// Errors are those of ReadResults, and kInvalidArgument for a section that is
// there and cannot be read.
#ifndef SHARDPROOF_REPORTS_READ_LAUNCH_H_
#define SHARDPROOF_REPORTS_READ_LAUNCH_H_

#include <optional>
#include <string>
#include <vector>

#include "reference/status.h"
#include "reports/report.h"
#include "reports/result_file.h"

namespace shardproof {

struct LoadedLaunch {
  Launch launch = {};
  std::vector<Comparison> comparisons = {};
  std::optional<Fingerprint> base_fingerprint = {};
  std::optional<Calibration> calibration = {};
  Interconnect interconnect = {};
};

StatusOr<LoadedLaunch> LaunchFrom(Results results, const std::string& name);
StatusOr<LoadedLaunch> ReadLaunch(const std::string& path);

}  // namespace shardproof

#endif  // SHARDPROOF_REPORTS_READ_LAUNCH_H_
