// Comparisons and calibrations as people read them on a terminal.
#ifndef SHARDPROOF_TOOLS_CLI_COMPARISON_TABLE_H_
#define SHARDPROOF_TOOLS_CLI_COMPARISON_TABLE_H_

#include <optional>
#include <span>
#include <string>

#include "reports/calibration.h"
#include "reports/comparison.h"

namespace shardproof {

// One line for each, the worst first, and a line that counts the verdicts.
std::string ComparisonTable(std::span<const Comparison> comparisons);
// "+5.1 %", "-0.3 %".
std::string ShareText(double share);

// False alarms, and what was found of each slow-down.
std::string CalibrationTable(const Calibration& calibration);
// Its sentence, or what to run where there is none.
std::string CalibrationSentence(const std::optional<Calibration>& calibration);
// Of this machine, from the history at `path` (empty: the usual one); none
// where there is no history, or none of this machine.
std::optional<Calibration> CalibrationHere(const std::string& path);

// "screening 3/10 launches" on a terminal, over itself.
void ShowLaunches(const std::string& stage, int done, int all);
void ClearLaunches();

}  // namespace shardproof

#endif  // SHARDPROOF_TOOLS_CLI_COMPARISON_TABLE_H_
