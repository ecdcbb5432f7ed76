// shardproof history: what was measured over time on this machine, and when it
// changed.
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <memory>
#include <utility>

#include "reports/result_file.h"
#include "reports/store/store.h"
#include "tools/cli/commands.h"
#include "tools/cli/comparison_table.h"
#include "tools/cli/environment.h"
#include "tools/cli/history_series.h"
#include "tools/cli/report_commands.h"
#include "tools/cli/report_files.h"
#include "tools/cli/table.h"

namespace shardproof {
namespace {

struct HistoryFlags {
  std::string filter, path, machine, since, prune;
  std::vector<std::string> import;
  ReportOutputs outputs;
  bool points = false, check = false;
};

std::string TimeOr(double us) { return us > 0 ? TimeText(us) : "-"; }

// "a1b2c3d4" or the label, for people.
std::string BuildOf(const History::Point& point) {
  return point.label.empty() ? point.binary.substr(0, 8) : point.label;
}

void PrintPoints(const History& h) {
  Table table({"started", "build", "median", "error/bound", ""});
  for (size_t i = 0; i < h.points.size(); ++i) {
    const History::Point& p = h.points[i];
    std::string note = p.passed ? "" : "did not pass";
    for (const History::Epoch& epoch : h.epochs) {
      if (epoch.first == i) note = "epoch: " + epoch.label;
    }
    for (const History::ChangePoint& change : h.changes) {
      if (change.first == i) {
        note = fmt::format("changed by {}, p = {:.2g}",
                           ShareText(change.effect), change.p);
      }
    }
    table.Add({p.started, BuildOf(p), TimeOr(p.median_us),
               fmt::format("{:.2g}", p.worst_ratio), note});
  }
  fmt::print("{}\n", table.Text());
}

void PrintHistories(const std::vector<History>& histories, bool points) {
  Table table({"key", "launches", "first", "last", "changes"});
  for (const History& h : histories) {
    double first = 0, last = 0;
    for (const History::Point& p : h.points) {
      if (!(p.median_us > 0)) continue;
      if (first == 0) first = p.median_us;
      last = p.median_us;
    }
    std::string changes;
    for (const History::ChangePoint& change : h.changes) {
      const History::Point& at = h.points[change.first];
      changes += fmt::format("{}{} at {} ({})", changes.empty() ? "" : ", ",
                             ShareText(change.effect), at.started, BuildOf(at));
    }
    for (const History::Epoch& epoch : h.epochs) {
      changes += fmt::format("{}epoch {} at {}", changes.empty() ? "" : ", ",
                             epoch.label, h.points[epoch.first].started);
    }
    table.Add({h.key, std::to_string(h.points.size()), TimeOr(first),
               TimeOr(last), changes.empty() ? "none" : changes});
    if (points) {
      fmt::print("{}\n", h.key);
      PrintPoints(h);
    }
  }
  fmt::print("{}", table.Text());
}

// Files that can be read are kept, whatever is wrong with the others.
StatusOr<ExitCode> ImportFiles(Store& store,
                               const std::vector<std::string>& paths) {
  const LoadedFiles files = LoadFiles(paths);
  const ExitCode code = SayErrors(files);
  for (const LoadedLaunch& one : files.loaded) {
    SP_ASSIGN_OR_RETURN(const Store::Imported imported,
                        store.Import(one.launch));
    fmt::print("{}: {} new records\n", one.launch.name, imported.records);
    if (one.calibration.has_value()) {
      SP_RETURN_IF_ERROR(store.PutCalibration(*one.calibration));
    }
    if (!one.comparisons.empty()) {
      SP_RETURN_IF_ERROR(store.PutComparisons(MachineId(one.launch.fingerprint),
                                              one.launch.started,
                                              one.comparisons));
    }
  }
  return code;
}

StatusOr<ExitCode> ShowHistory(const HistoryFlags& flags) {
  const bool writes = !flags.import.empty() || !flags.prune.empty();
  SP_ASSIGN_OR_RETURN(
      Store store,
      Store::Open(flags.path.empty() ? Store::DefaultPath() : flags.path,
                  writes ? StoreMode::kReadWrite : StoreMode::kReadOnly));
  ExitCode code = kExitPass;
  if (flags.check) {
    SP_RETURN_IF_ERROR(store.Check());
    fmt::print("{} is sound\n", store.path());
  }
  if (!flags.import.empty()) {
    SP_ASSIGN_OR_RETURN(code, ImportFiles(store, flags.import));
  }
  if (!flags.prune.empty()) {
    SP_ASSIGN_OR_RETURN(const int64_t launches, store.Prune(flags.prune));
    fmt::print("{} launches from before {} are forgotten\n", launches,
               flags.prune);
  }
  const std::string here = MachineId(CollectFingerprint());
  const std::string machine = flags.machine.empty()    ? here
                              : flags.machine == "all" ? ""
                                                       : flags.machine;
  SP_ASSIGN_OR_RETURN(
      std::vector<History> histories,
      store.Histories(
          {.filter = flags.filter, .machine = machine, .since = flags.since}));
  for (History& history : histories) FindChanges(history);
  if (histories.empty()) {
    if (writes || flags.check) return code;
    return InvalidArgument(
        "{} knows nothing of \"{}\" on this machine ({}): `run` stores what it "
        "measures, --import takes result files, --machine all shows every "
        "machine",
        store.path(), flags.filter, here);
  }
  PrintHistories(histories, flags.points);
  if (flags.outputs.any()) {
    Report report;
    report.title = "History";
    report.written = UtcNow();
    SP_ASSIGN_OR_RETURN(report.launches, store.Launches({.filter = flags.filter,
                                                         .machine = machine,
                                                         .last = 1}));
    SP_ASSIGN_OR_RETURN(report.calibration, store.LatestCalibration(here));
    report.histories = std::move(histories);
    SP_RETURN_IF_ERROR(WriteOutputs(report, flags.outputs));
  }
  return code;
}

}  // namespace

void AddHistoryCommand(CLI::App& app, Done done) {
  CLI::App* history = app.add_subcommand(
      "history", "What was measured over time, and when it changed");
  const auto flags = std::make_shared<HistoryFlags>();
  history->add_option("filter", flags->filter,
                      "Keys that this regular expression is found in: "
                      "\"all_reduce ring .*dtype=f32\"");
  history->add_option("--history", flags->path,
                      "The file (default: $SHARDPROOF_HISTORY, else under the "
                      "user's state directory)");
  history->add_option("--machine", flags->machine,
                      "The history of another machine, or all (default: this "
                      "one)");
  history->add_option("--since", flags->since,
                      "Only launches that started then or later: 2026-10-01");
  history->add_flag("--points", flags->points, "Every launch, not only sums");
  history->add_option("--import", flags->import,
                      "Take these result files into the history first");
  history->add_option("--prune", flags->prune,
                      "Forget what is older first: 2026-01-01");
  history->add_flag("--check", flags->check, "Check the whole file first");
  AddOutputFlags(*history, flags->outputs);
  history->callback([flags, done = std::move(done)] {
    const StatusOr<ExitCode> code = ShowHistory(*flags);
    done(code.ok() ? *code : Refuse(code.status()));
  });
}

}  // namespace shardproof
