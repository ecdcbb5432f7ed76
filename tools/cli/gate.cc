// shardproof gate: may this change be merged?
#include "reports/gate/gate.h"

#include <fmt/format.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cmath>
#include <map>
#include <memory>
#include <set>
#include <utility>

#include "reports/gate/policy.h"
#include "reports/key.h"
#include "reports/statistics/verdict.h"
#include "reports/store/store.h"
#include "tools/cli/commands.h"
#include "tools/cli/comparison_table.h"
#include "tools/cli/conditions.h"
#include "tools/cli/environment.h"
#include "tools/cli/history_series.h"
#include "tools/cli/pairs.h"
#include "tools/cli/report_commands.h"
#include "tools/cli/report_files.h"

namespace shardproof {
namespace {

constexpr const char* kUsualPolicy = "gate.toml";

struct GateFlags {
  std::vector<std::string> files, baseline;
  std::string policy, history;
  ReportOutputs outputs;
  int last = 10;
  bool from_history = false, correctness_only = false;
};

StatusOr<Policy> PolicyOf(const GateFlags& flags) {
  if (!flags.policy.empty()) return LoadPolicy(flags.policy);
  if (access(kUsualPolicy, F_OK) != 0) return DefaultPolicy();
  return LoadPolicy(kUsualPolicy);
}

// The policy's margin in place of the one that a comparison was judged by.
void ApplyMargin(const Policy& policy, double noise, Comparison& c) {
  if (c.change == Change::kInvalid) return;
  const Policy::Margin margin = policy.MarginOf(c.key);
  Rules rules;
  rules.least_margin = margin.least;
  rules.least_margin_us = margin.least_us;
  c.margin = Margin(rules, noise, c.base_us);
  const bool sure = c.adjusted_p < rules.alpha;
  const bool judged =
      c.change == Change::kRegressed || c.change == Change::kImproved;
  const double effect = std::log1p(c.effect), least = std::log1p(c.margin);
  if (sure && std::abs(effect) > least) {
    if (judged) return;
    c.change = effect > 0 ? Change::kRegressed : Change::kImproved;
    c.reason = fmt::format("{} is beyond the policy's margin of {}",
                           ShareText(c.effect), ShareText(c.margin));
  } else if (judged) {
    const double bound = std::log1p(rules.equivalence);
    const bool small = std::log1p(c.interval_low) > -bound &&
                       std::log1p(c.interval_high) < bound;
    c.change = small ? Change::kEquivalent : Change::kInconclusive;
    c.reason = fmt::format("{} is within the policy's margin of {}",
                           ShareText(c.effect), ShareText(c.margin));
  }
}

// Medians of launches by key, in the order of the launches.
using Medians = std::map<std::string, std::vector<double>>;

// `identities` gets what each key is, and `throttled` why a launch of it must
// not be judged.
Medians MediansOf(const std::vector<Launch>& launches,
                  std::map<std::string, Comparison>& identities,
                  std::map<std::string, std::string>& throttled) {
  Medians medians;
  for (const Launch& launch : launches) {
    const std::string disturbed = Throttled(launch.before, launch.after);
    for (const Record& r : launch.records) {
      if (!r.time_us.has_value() || r.verdict != Verdict::kPassed) continue;
      const std::string key = KeyOf(r);
      medians[key].push_back(r.time_us->median);
      if (!disturbed.empty()) throttled[key] = launch.name + ": " + disturbed;
      identities.try_emplace(key, IdentityOf(r));
    }
  }
  return medians;
}

// Launches of two days are no pairs.
std::vector<Comparison> CompareLaunches(const std::vector<Launch>& base,
                                        const std::vector<Launch>& cand,
                                        double noise) {
  std::map<std::string, Comparison> identities;
  std::map<std::string, std::string> throttled;
  Medians bases = MediansOf(base, identities, throttled);
  Medians cands = MediansOf(cand, identities, throttled);
  std::vector<UnpairedLaunches> cases;
  for (auto& [key, medians] : cands) {
    const auto found = bases.find(key);
    if (found == bases.end()) continue;  // New: there is nothing to judge by.
    UnpairedLaunches one;
    one.identity = identities.at(key);
    one.base = found->second;
    one.cand = medians;
    if (const auto why = throttled.find(key); why != throttled.end()) {
      one.invalid = why->second;
    }
    cases.push_back(std::move(one));
  }
  return JudgeUnpaired(cases, {}, noise);
}

StatusOr<std::vector<Launch>> BaselineOf(const GateFlags& flags,
                                         const Report& report, ExitCode& code) {
  const std::vector<Launch>& cand = report.launches;
  // What ab compared needs no baseline.
  const bool named = !flags.history.empty() && report.comparisons.empty();
  std::vector<Launch> baseline;
  if (!flags.baseline.empty()) {
    LoadedFiles files = LoadFiles(flags.baseline);
    code = Worse(code, SayErrors(files));
    for (LoadedLaunch& one : files.loaded) {
      baseline.push_back(std::move(one.launch));
    }
  } else if (flags.from_history || named) {
    SP_ASSIGN_OR_RETURN(Store store,
                        Store::Open(flags.history.empty() ? Store::DefaultPath()
                                                          : flags.history,
                                    StoreMode::kReadOnly));
    const Fingerprint& here = cand.front().fingerprint;
    SP_ASSIGN_OR_RETURN(baseline, store.Launches({.machine = MachineId(here),
                                                  .epoch = EpochId(here),
                                                  .last = flags.last}));
    // What is judged is no baseline of itself.
    std::erase_if(baseline, [&](const Launch& launch) {
      return std::any_of(cand.begin(), cand.end(), [&](const Launch& c) {
        return c.started == launch.started && c.command == launch.command;
      });
    });
  }
  return baseline;
}

void PrintOutcome(const GateOutcome& outcome, const Report& report) {
  if (!report.comparisons.empty()) {
    fmt::print("{}\n", ComparisonTable(report.comparisons));
  }
  for (const GateOutcome::Finding& f : outcome.findings) {
    fmt::print("{}{}: {}: {}\n", f.quarantined ? "quarantined, " : "", f.kind,
               f.key, f.reason);
    if (f.quarantined) fmt::print("  {}\n", f.quarantine);
    if (!f.repro.empty()) fmt::print("  {}\n", f.repro);
  }
  for (const std::string& note : outcome.notes) fmt::print("{}\n", note);
  fmt::print("{}\n{} (exit {})\n", CalibrationSentence(report.calibration),
             outcome.headline, outcome.exit_code);
}

StatusOr<ExitCode> Gate(const GateFlags& flags) {
  SP_ASSIGN_OR_RETURN(const Policy policy, PolicyOf(flags));
  const LoadedFiles files = LoadFiles(flags.files);
  ExitCode code = SayErrors(files);
  if (files.loaded.empty()) return Worse(code, kExitInvalid);
  Report report = ReportOf(files.loaded);
  report.title = "Gate";
  std::vector<Launch> baseline;
  if (!flags.correctness_only) {
    SP_ASSIGN_OR_RETURN(baseline, BaselineOf(flags, report, code));
  }
  SP_RETURN_IF_ERROR(AddHistory(flags.history, report));
  const double noise =
      report.calibration.has_value() ? report.calibration->noise : 0;
  if (flags.correctness_only) report.comparisons.clear();
  if (!baseline.empty()) {
    for (Comparison& c : CompareLaunches(baseline, report.launches, noise)) {
      report.comparisons.push_back(std::move(c));
    }
    report.base_fingerprint = baseline.back().fingerprint;
  }
  for (Comparison& c : report.comparisons) ApplyMargin(policy, noise, c);
  report.gate = Evaluate(policy, {.candidate = report.launches,
                                  .baseline = baseline,
                                  .comparisons = report.comparisons,
                                  .today = UtcNow()});
  if (report.comparisons.empty() && !flags.correctness_only) {
    report.gate->findings.push_back(
        {.kind = "missing",
         .reason =
             "there is no baseline to judge times by: give --baseline, "
             "--from-history, the result of `ab`, or --correctness-only"});
    code = Worse(code, kExitInvalid);
  }
  // A file that could not be read is data that is missing.
  code = Worse(code, static_cast<ExitCode>(report.gate->exit_code));
  if (code != report.gate->exit_code) {
    report.gate->headline = fmt::format(
        "INVALID: data is missing; of the rest: {}", report.gate->headline);
  }
  report.gate->exit_code = code;
  PrintOutcome(*report.gate, report);
  const Status written = WriteOutputs(report, flags.outputs);
  return written.ok() ? code : Worse(code, Refuse(written));
}

}  // namespace

void AddGateCommand(CLI::App& app, Done done) {
  CLI::App* gate = app.add_subcommand(
      "gate",
      "A verdict for continuous integration: wrong results, confirmed "
      "slow-downs, missing data");
  const auto flags = std::make_shared<GateFlags>();
  gate->footer(
      "Times are judged by the comparisons of `ab --json`, or by several "
      "launches on each side; one launch on a side decides nothing. Without "
      "either, the baseline is missing (exit 5), unless only correctness is "
      "asked for.");
  gate->add_option("files", flags->files,
                   "Result files of the change: of ab, or of several launches "
                   "of run or bench")
      ->required();
  auto* files = gate->add_option("--baseline", flags->baseline,
                                 "Result files of launches before the change");
  gate->add_flag("--from-history", flags->from_history,
                 "The baseline is what the history has of this machine in this "
                 "epoch")
      ->excludes(files);
  gate->add_option("--history", flags->history,
                   "Which history (default: the usual one); implies "
                   "--from-history without --baseline and `ab --json`");
  gate->add_option("--last", flags->last, "At most so many launches of it")
      ->check(CLI::Range(1, 10000))
      ->capture_default_str();
  gate->add_option("--policy", flags->policy,
                   "Margins, filters and quarantine (default: gate.toml of "
                   "this folder, if there is one)");
  gate->add_flag("--correctness-only", flags->correctness_only,
                 "Judge no times");
  AddOutputFlags(*gate, flags->outputs);
  gate->callback([flags, done = std::move(done)] {
    const StatusOr<ExitCode> code = Gate(*flags);
    done(code.ok() ? *code : Refuse(code.status()));
  });
}

}  // namespace shardproof
