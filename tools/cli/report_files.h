// Result files in, reports out: what report, gate, history and run share.
#ifndef SHARDPROOF_TOOLS_CLI_REPORT_FILES_H_
#define SHARDPROOF_TOOLS_CLI_REPORT_FILES_H_

#include <string>
#include <string_view>
#include <vector>

#include "reference/status.h"
#include "reports/read_launch.h"
#include "reports/report.h"
#include "tools/cli/app_fwd.h"
#include "tools/cli/exit_code.h"

namespace shardproof {

// Where each kind of report goes; empty: nowhere, "-": standard output.
struct ReportOutputs {
  std::string html = {}, junit = {}, csv = {}, comparisons_csv = {};
  std::string openmetrics = {}, summary = {}, trace = {};
  bool any() const {
    return !(html.empty() && junit.empty() && csv.empty() &&
             comparisons_csv.empty() && openmetrics.empty() &&
             summary.empty() && trace.empty());
  }
};
// -o, --junit, --csv, --comparisons-csv, --openmetrics, --summary, --trace.
void AddOutputFlags(CLI::App& app, ReportOutputs& outputs);

// Each file is written whole or not at all; the summary is appended, as GitHub
// wants it. kUnavailable or kDataLoss names the first that could not be written;
// the others are written all the same.
Status WriteOutputs(const Report& report, const ReportOutputs& outputs);
Status WriteWholeFile(const std::string& path, std::string_view text);

// Files that can be read, and why the others cannot.
struct LoadedFiles {
  std::vector<LoadedLaunch> loaded = {};
  std::vector<Status> errors = {};
};
LoadedFiles LoadFiles(const std::vector<std::string>& paths);
// Prints each error; the exit code that they ask for (5 for damaged files).
ExitCode SayErrors(const LoadedFiles& files);

// The launches and sections of all files, with `written` set and the shard
// diagrams of the layers among them.
Report ReportOf(const std::vector<LoadedLaunch>& loaded);

}  // namespace shardproof

#endif  // SHARDPROOF_TOOLS_CLI_REPORT_FILES_H_
