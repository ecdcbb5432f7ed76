// shardproof report: result files as pages and files that others read.
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <memory>
#include <utility>

#include "tools/cli/commands.h"
#include "tools/cli/comparison_table.h"
#include "tools/cli/history_series.h"
#include "tools/cli/report_commands.h"
#include "tools/cli/report_files.h"

namespace shardproof {
namespace {

struct ReportFlags {
  std::vector<std::string> files;
  ReportOutputs outputs;
  std::string history, title;
  bool no_history = false;
};

ExitCode WriteReport(const ReportFlags& flags) {
  ReportOutputs outputs = flags.outputs;
  if (!outputs.any()) outputs.html = "report.html";
  const LoadedFiles files = LoadFiles(flags.files);
  const ExitCode errors = SayErrors(files);
  if (files.loaded.empty()) return errors;
  Report report = ReportOf(files.loaded);
  if (!flags.title.empty()) report.title = flags.title;
  if (!flags.no_history) {
    const Status added = AddHistory(flags.history, report);
    if (!added.ok()) return Worse(errors, Refuse(added));
  }
  const Status written = WriteOutputs(report, outputs);
  if (!written.ok()) return Worse(errors, Refuse(written));
  for (const std::string& path :
       {outputs.html, outputs.junit, outputs.csv, outputs.openmetrics,
        outputs.summary, outputs.trace}) {
    if (!path.empty() && path != "-") fmt::print("written to {}\n", path);
  }
  return errors;
}

}  // namespace

void AddReportCommand(CLI::App& app, Done done) {
  CLI::App* report = app.add_subcommand(
      "report",
      "Result files as HTML (the default: report.html), JUnit, CSV, "
      "OpenMetrics, a GitHub step summary, a trace");
  const auto flags = std::make_shared<ReportFlags>();
  report
      ->add_option("files", flags->files,
                   "Result files: of run, verify, bench, ab, calibrate, p2p, "
                   "fit and scale; all in one report")
      ->required();
  AddOutputFlags(*report, flags->outputs);
  report->add_option("--title", flags->title, "The heading of the page");
  report->add_option("--history", flags->history,
                     "The history to show beside it (default: the usual one)");
  report->add_flag("--no-history", flags->no_history, "Show none");
  report->callback(
      [flags, done = std::move(done)] { done(WriteReport(*flags)); });
}

}  // namespace shardproof
