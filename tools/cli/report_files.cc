#include "tools/cli/report_files.h"

#include <fmt/format.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <set>
#include <utility>

#include "reports/exports/chrome_trace.h"
#include "reports/exports/csv.h"
#include "reports/exports/junit.h"
#include "reports/exports/openmetrics.h"
#include "reports/exports/step_summary.h"
#include "reports/html/html.h"
#include "tools/cli/diagram.h"
#include "tools/cli/environment.h"

namespace shardproof {
namespace {

Status WriteError(const std::string& path) {
  const int error = errno;
  return error == ENOSPC || error == EIO
             ? DataLoss("cannot write {}: {}", path, std::strerror(error))
             : Unavailable("cannot write {}: {}", path, std::strerror(error));
}

Status Print(std::string_view text) {
  if (std::fwrite(text.data(), 1, text.size(), stdout) != text.size() ||
      std::fflush(stdout) != 0) {
    return WriteError("standard output");
  }
  return OkStatus();
}

Status AppendToFile(const std::string& path, std::string_view text) {
  errno = 0;
  std::ofstream out(path, std::ios::binary | std::ios::app);
  out << text;
  out.close();
  return out ? OkStatus() : WriteError(path);
}

// Of the layers among `cases`, at their smallest sizes. A page without pictures
// is a page all the same, so what cannot be drawn is left out.
std::vector<ShardDiagram> DiagramsOfLayers(const std::set<std::string>& cases) {
  std::vector<const CaseInfo*> layers;
  for (const CaseInfo* info : LayerCases()) {
    if (cases.contains(info->name)) layers.push_back(info);
  }
  if (layers.empty()) return {};
  const auto world = CreateWorld("thread");
  return world.ok() ? DiagramsOf(**world, layers).diagrams
                    : std::vector<ShardDiagram>();
}

}  // namespace

void AddOutputFlags(CLI::App& app, ReportOutputs& outputs) {
  const std::string group = "Reports (- is standard output)";
  app.add_option("-o,--html", outputs.html, "One page for a browser")
      ->group(group);
  app.add_option("--junit", outputs.junit,
                 "JUnit XML, for continuous integration")
      ->group(group);
  app.add_option("--csv", outputs.csv, "A table of all records")->group(group);
  app.add_option("--comparisons-csv", outputs.comparisons_csv,
                 "A table of all comparisons")
      ->group(group);
  app.add_option("--openmetrics", outputs.openmetrics,
                 "For Prometheus and its like")
      ->group(group);
  app.add_option("--summary", outputs.summary,
                 "Markdown, appended: --summary \"$GITHUB_STEP_SUMMARY\"")
      ->group(group);
  app.add_option("--trace", outputs.trace,
                 "Samples of each rank over time, for ui.perfetto.dev")
      ->group(group);
}

Status WriteWholeFile(const std::string& path, std::string_view text) {
  if (path == "-") return Print(text);
  // Beside it and renamed, so that nobody ever reads half of it. What is not a
  // plain file (/dev/null, a pipe) is written as it is.
  if (access(path.c_str(), F_OK) == 0) {
    std::error_code ignored;
    if (!std::filesystem::is_regular_file(path, ignored)) {
      return AppendToFile(path, text);
    }
  }
  const std::string beside = fmt::format("{}.{}.part", path, getpid());
  errno = 0;
  std::ofstream out(beside, std::ios::binary);
  out << text;
  out.close();
  Status status;
  if (!out || std::rename(beside.c_str(), path.c_str()) != 0) {
    status = WriteError(path);
  }
  if (!status.ok()) std::remove(beside.c_str());
  return status;
}

Status WriteOutputs(const Report& report, const ReportOutputs& outputs) {
  Status first;
  const auto write = [&](const std::string& path, auto text) {
    if (path.empty()) return;
    const Status status = WriteWholeFile(path, text(report));
    if (first.ok()) first = status;
  };
  write(outputs.html, Html);
  write(outputs.junit, JUnit);
  write(outputs.csv, RecordsCsv);
  write(outputs.comparisons_csv, ComparisonsCsv);
  write(outputs.openmetrics, OpenMetrics);
  write(outputs.trace, ChromeTrace);
  if (!outputs.summary.empty()) {
    const std::string text = StepSummary(report);
    const Status status = outputs.summary == "-"
                              ? Print(text)
                              : AppendToFile(outputs.summary, text);
    if (first.ok()) first = status;
  }
  return first;
}

LoadedFiles LoadFiles(const std::vector<std::string>& paths) {
  LoadedFiles files;
  for (const std::string& path : paths) {
    StatusOr<LoadedLaunch> loaded = ReadLaunch(path);
    if (loaded.ok()) {
      files.loaded.push_back(*std::move(loaded));
    } else {
      files.errors.push_back(loaded.status());
    }
  }
  return files;
}

ExitCode SayErrors(const LoadedFiles& files) {
  ExitCode code = kExitPass;
  for (const Status& error : files.errors) {
    fmt::print(stderr, "shardproof: {}\n", error.message());
    // A file that is not there was mistyped; one that is damaged is no data.
    const bool typed = error.code() == StatusCode::kInvalidArgument ||
                       error.code() == StatusCode::kUnavailable;
    code = Worse(code, typed ? kExitUsage : kExitInvalid);
  }
  return code;
}

namespace {

// Of each launch; empty where all are of one.
std::vector<std::string> MachinesOf(const std::vector<LoadedLaunch>& loaded) {
  std::vector<Launch> launches;
  for (const LoadedLaunch& one : loaded) {
    launches.emplace_back().fingerprint = one.launch.fingerprint;
  }
  if (OfSeveralMachines(launches)) return MachineNames(launches);
  return std::vector<std::string>(loaded.size());
}

}  // namespace

Report ReportOf(const std::vector<LoadedLaunch>& loaded) {
  Report report;
  report.written = UtcNow();
  std::set<std::string> cases;
  const std::vector<std::string> machines = MachinesOf(loaded);
  for (const LoadedLaunch& one : loaded) {
    report.launches.push_back(one.launch);
    const std::string& machine = machines[report.launches.size() - 1];
    const auto append = [](auto& to, const auto& from) {
      to.insert(to.end(), from.begin(), from.end());
    };
    const auto append_links = [&](auto& to, const auto& from) {
      for (auto& link : from) to.emplace_back(link).machine = machine;
    };
    append(report.comparisons, one.comparisons);
    append_links(report.interconnect.p2p, one.interconnect.p2p);
    append_links(report.interconnect.fits, one.interconnect.fits);
    append_links(report.interconnect.crossovers, one.interconnect.crossovers);
    append_links(report.interconnect.scaling, one.interconnect.scaling);
    for (const std::string& finding : one.interconnect.findings) {
      report.interconnect.findings.push_back(
          machine.empty() ? finding : fmt::format("{}: {}", machine, finding));
    }
    if (one.base_fingerprint) report.base_fingerprint = one.base_fingerprint;
    if (one.calibration) report.calibration = one.calibration;
    for (const Record& record : one.launch.records) {
      cases.insert(record.case_name);
    }
  }
  report.diagrams = DiagramsOfLayers(cases);
  return report;
}

}  // namespace shardproof
