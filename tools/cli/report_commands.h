// What became of measurements: report, compare, gate, history, ab, calibrate.
// Each adds its subcommand, and gives the exit code to `done` when it has run.
#ifndef SHARDPROOF_TOOLS_CLI_REPORT_COMMANDS_H_
#define SHARDPROOF_TOOLS_CLI_REPORT_COMMANDS_H_

#include <functional>
#include <string>
#include <vector>

#include "tools/cli/app_fwd.h"
#include "tools/cli/exit_code.h"

namespace shardproof {

using Done = std::function<void(ExitCode)>;

// Result files as HTML, JUnit, CSV, OpenMetrics, a step summary, a trace.
void AddReportCommand(CLI::App& app, Done done);
// Several result files side by side; no verdict.
void AddCompareCommand(CLI::App& app, Done done);
// A verdict and an exit code for continuous integration.
void AddGateCommand(CLI::App& app, Done done);
// What was measured over time, and when it changed.
void AddHistoryCommand(CLI::App& app, Done done);
// Two builds or libraries in pairs of launches. What it does not know goes to
// `bench`.
void AddAbCommand(CLI::App& app, Done done, std::string command_line);
// How good the gate is on this machine.
void AddCalibrateCommand(CLI::App& app, Done done, std::string command_line);

}  // namespace shardproof

#endif  // SHARDPROOF_TOOLS_CLI_REPORT_COMMANDS_H_
