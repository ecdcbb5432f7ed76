// The history beside a report: series of keys with their change points, and
// what the gate can see on this machine.
#ifndef SHARDPROOF_TOOLS_CLI_HISTORY_SERIES_H_
#define SHARDPROOF_TOOLS_CLI_HISTORY_SERIES_H_

#include <string>

#include "reference/status.h"
#include "reports/report.h"

namespace shardproof {

// Points at which the times of one epoch change (E-divisive on the logarithms
// of the launches' medians). A change of driver, library or kernel is an epoch
// of its own, not a change point; points without a time are passed over.
void FindChanges(History& history);

// Fills report.histories with those of the report's keys on this machine, and
// report.calibration where it has none. `path` empty: the usual history, which
// need not be there. A history that was named and cannot be read is an error.
Status AddHistory(const std::string& path, Report& report);

}  // namespace shardproof

#endif  // SHARDPROOF_TOOLS_CLI_HISTORY_SERIES_H_
