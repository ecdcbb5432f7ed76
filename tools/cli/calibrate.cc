// shardproof calibrate: how often does the gate cry wolf on this machine, and
// which slow-downs does it find?
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <memory>
#include <optional>
#include <set>
#include <utility>

#include "reports/calibration.h"
#include "reports/result_file.h"
#include "reports/statistics/clopper_pearson.h"
#include "reports/statistics/order.h"
#include "reports/store/store.h"
#include "tools/cli/commands.h"
#include "tools/cli/comparison_table.h"
#include "tools/cli/environment.h"
#include "tools/cli/launch_options.h"
#include "tools/cli/pairs.h"
#include "tools/cli/report_commands.h"

namespace shardproof {
namespace {

// Without arguments for bench: operations of 0.03 to 3 ms, which every machine
// can time, in 30 instances.
const std::vector<std::string>& UsualBench() {
  static const std::string filter =
      "^collectives/"
      "(all_reduce|all_gather|reduce_scatter|broadcast|all_to_all)$";
  static const std::vector<std::string> usual = {
      "--filter", filter, "--variant", "direct|ring|tree|pairwise",
      "--ranks",  "2",    "-b",        "1M",
      "-e",       "4M",   "-f",        "2",
      "-d",       "float"};
  return usual;
}

// Verdicts that the noise is taken from, before those that are counted.
constexpr int kNoiseVerdicts = 60;
constexpr size_t kMostNotes = 20;

struct CalibrateOptions {
  std::string binary, json, history, command_line;
  std::vector<std::string> bench;
  std::vector<double> slowdowns = {0.01, 0.02, 0.03, 0.05, 0.10};
  int verdicts = 300, trials = 60;
  uint64_t seed = 1;
  LaunchOptions launch;
  bool no_history = false;
};

class Calibrating {
 public:
  explicit Calibrating(const CalibrateOptions& options) : o_(options) {}

  StatusOr<Calibration> Run() {
    SP_RETURN_IF_ERROR(MeasureNoise());
    SP_RETURN_IF_ERROR(CountFalseAlarms());
    if (!stopped_) SP_RETURN_IF_ERROR(CountFound());
    c_.machine = MachineId(CollectFingerprint());
    c_.measured = UtcNow();
    c_.cases = static_cast<int>(keys_.size());
    c_.seconds = Elapsed();
    return c_;
  }
  bool stopped() const { return stopped_; }
  const std::vector<std::string>& notes() const { return notes_; }

 private:
  double Elapsed() const {
    return std::chrono::duration<double>(std::chrono::steady_clock::now() -
                                         start_)
        .count();
  }

  // One comparison of this binary with itself, where the candidate is slowed as
  // `plan` says (null: not at all).
  StatusOr<PairedOutcome> Round(const std::string& stage, const Plan* base,
                                const Plan* plan, const Rules& rules = {}) {
    PairedRun run;
    run.rules = rules;
    run.base = RequestOf(o_.launch, o_.binary,
                         o_.bench.empty() ? UsualBench() : o_.bench);
    run.turn_seconds = o_.launch.turn_seconds();
    run.cand = run.base;
    run.base.plan = base;
    run.cand.plan = plan;
    run.noise = c_.noise;
    run.seed = o_.seed + round_++;
    run.progress = [&](const std::string& part, int done, int all) {
      ShowLaunches(fmt::format("{}, {}", stage, part), done, all);
    };
    SP_ASSIGN_OR_RETURN(PairedOutcome outcome, RunPairs(run));
    stopped_ = stopped_ || outcome.interrupted;
    if (!outcome.wrong.empty()) {
      const Record& r = outcome.wrong.front();
      return Aborted("{} {} did not pass, so nothing is calibrated by it: {}",
                     r.case_name, r.variant, r.reason);
    }
    for (const std::string& note : outcome.notes) {
      if (notes_.size() < kMostNotes) {
        notes_.push_back(fmt::format("{}, {}", stage, note));
      }
    }
    if (outcome.comparisons.empty()) {
      return InvalidArgument("nothing was measured: choose cases of bench");
    }
    for (const Comparison& c : outcome.comparisons) keys_.insert(c.key);
    return outcome;
  }

  // In as many pairs as decide: those of screening are fewer, and their noise
  // is not that of a verdict.
  Status MeasureNoise() {
    Rules rules;
    rules.screen_pairs = rules.fresh_pairs;
    std::vector<double> effects;
    while (static_cast<int>(effects.size()) < kNoiseVerdicts && !stopped_) {
      SP_ASSIGN_OR_RETURN(const PairedOutcome outcome,
                          Round("noise", nullptr, nullptr, rules));
      for (const Comparison& c : outcome.comparisons) {
        if (c.change != Change::kInvalid) {
          effects.push_back(std::abs(std::log1p(c.effect)));
        }
      }
    }
    std::sort(effects.begin(), effects.end());
    c_.noise = Quantile(effects, 0.95);
    return OkStatus();
  }

  Status CountFalseAlarms() {
    while (c_.null_verdicts < o_.verdicts && !stopped_) {
      SP_ASSIGN_OR_RETURN(const PairedOutcome outcome,
                          Round(fmt::format("same against same {} of {}",
                                            c_.null_verdicts, o_.verdicts),
                                nullptr, nullptr));
      if (stopped_) break;
      for (const Comparison& c : outcome.comparisons) {
        ++c_.null_verdicts;
        if (c.change == Change::kRegressed || c.change == Change::kImproved) {
          ++c_.false_alarms;
          notes_.push_back(fmt::format("false alarm: {} {}: {}", Name(c.change),
                                       c.key, c.reason));
        }
      }
    }
    c_.false_alarms_high =
        ClopperPearsonHigh(c_.false_alarms, c_.null_verdicts, 0.95);
    return OkStatus();
  }

  // All slow-downs in each round, so that none has a better hour than another;
  // keys take turns.
  Status CountFound() {
    const size_t levels = o_.slowdowns.size();
    std::vector<std::vector<double>> effects(levels);
    c_.power.resize(levels);
    for (size_t i = 0; i < levels; ++i) {
      c_.power[i].slowdown = o_.slowdowns[i];
    }
    Plan none;
    for (const std::string& key : keys_) none[key] = 0;
    for (size_t turn = 0; !stopped_ && levels > 0; ++turn) {
      const auto least = std::min_element(
          c_.power.begin(), c_.power.end(),
          [](const auto& a, const auto& b) { return a.trials < b.trials; });
      if (least->trials >= o_.trials) break;
      Plan plan;
      std::map<std::string, size_t> level;
      size_t at = turn;
      for (const std::string& key : keys_) {
        level[key] = at % levels;
        plan[key] = o_.slowdowns[at++ % levels];
      }
      SP_ASSIGN_OR_RETURN(
          const PairedOutcome outcome,
          Round(fmt::format("slow-downs {} of {}", least->trials, o_.trials),
                &none, &plan));
      if (stopped_) break;
      for (const Comparison& c : outcome.comparisons) {
        Calibration::Power& power = c_.power[level.at(c.key)];
        ++power.trials;
        if (c.change == Change::kRegressed) {
          ++power.found;
        } else if (power.slowdown > c.margin && notes_.size() < kMostNotes) {
          // Below the margin it is nobody's to find.
          notes_.push_back(fmt::format("missed: {} percent: {} {}: {}",
                                       100 * power.slowdown, Name(c.change),
                                       c.key, c.reason));
        }
        effects[level.at(c.key)].push_back(c.effect);
      }
    }
    for (size_t i = 0; i < levels; ++i) {
      std::sort(effects[i].begin(), effects[i].end());
      c_.power[i].median_effect = Quantile(effects[i], 0.5);
      c_.power[i].found_low =
          ClopperPearsonLow(c_.power[i].found, c_.power[i].trials, 0.95);
    }
    return OkStatus();
  }

  const CalibrateOptions& o_;
  Calibration c_;
  std::set<std::string> keys_;
  std::vector<std::string> notes_;
  uint64_t round_ = 0;
  bool stopped_ = false;
  std::chrono::steady_clock::time_point start_ =
      std::chrono::steady_clock::now();
};

Status Keep(const CalibrateOptions& o, const Calibration& calibration) {
  if (o.no_history) return OkStatus();
  const std::string path = o.history.empty() ? Store::DefaultPath() : o.history;
  SP_ASSIGN_OR_RETURN(Store store, Store::Open(path, StoreMode::kReadWrite));
  SP_RETURN_IF_ERROR(store.PutCalibration(calibration));
  fmt::print("kept in {}: reports, ab and gate go by it\n", path);
  return OkStatus();
}

StatusOr<ExitCode> Calibrate(const CalibrateOptions& o) {
  std::optional<ResultFile> file;
  if (!o.json.empty()) {
    SP_ASSIGN_OR_RETURN(
        file, ResultFile::Create(o.json, {.command = o.command_line,
                                          .started = UtcNow(),
                                          .environment = Environment()}));
  }
  Calibrating work(o);
  StatusOr<Calibration> calibration = work.Run();
  ClearLaunches();
  SP_RETURN_IF_ERROR(calibration.status());
  fmt::print("{}\n{}\n", CalibrationTable(*calibration),
             Sentence(*calibration));
  for (const std::string& note : work.notes()) fmt::print("{}\n", note);
  if (file.has_value()) {
    ResultEnd end{.finished = UtcNow(), .interrupted = work.stopped()};
    end.left_out = work.notes();
    end.sections["calibration"] = ToJson(*calibration);
    SP_RETURN_IF_ERROR(file->Finish(end));
    fmt::print("written to {}\n", o.json);
  }
  if (work.stopped()) {
    fmt::print("interrupted: not kept\n");
    return kExitInterrupted;
  }
  SP_RETURN_IF_ERROR(Keep(o, *calibration));
  return kExitPass;
}

}  // namespace

void AddCalibrateCommand(CLI::App& app, Done done, std::string command_line) {
  CLI::App* calibrate = app.add_subcommand(
      "calibrate",
      "How often the gate raises a false alarm on this machine, and which "
      "slow-downs it finds");
  const auto o = std::make_shared<CalibrateOptions>();
  o->command_line = std::move(command_line);
  calibrate->footer(
      "Takes tens of minutes to hours, on a machine that must be idle "
      "otherwise. "
      "Everything "
      "else "
      "goes to `bench`: --filter, --ranks, -b, -e ... (default: five "
      "collectives of 1 to 4 MiB on 2 ranks).");
  calibrate->allow_extras();
  calibrate
      ->add_option("--binary", o->binary,
                   "The build to compare with itself (default: this one)")
      ->check(CLI::ExistingFile);
  calibrate
      ->add_option("--verdicts", o->verdicts,
                   "Verdicts of the same against the same")
      ->check(CLI::Range(1, 1000000))
      ->capture_default_str();
  calibrate
      ->add_option("--slow-downs", o->slowdowns,
                   "Shares by which one rank is delayed, with commas between")
      ->delimiter(',')
      ->check(CLI::Range(1e-4, 10.0))
      ->capture_default_str();
  calibrate->add_option("--trials", o->trials, "At least, of each slow-down")
      ->check(CLI::Range(1, 1000000))
      ->capture_default_str();
  AddLaunchOptions(*calibrate, o->launch);
  calibrate->add_option("--seed", o->seed, "Of the order within pairs")
      ->capture_default_str();
  calibrate->add_option("--json", o->json, "Write it to this file as well");
  calibrate->add_option("--history", o->history,
                        "Keep it in this history (default: the usual one)");
  calibrate->add_flag("--no-history", o->no_history, "Keep it nowhere");
  calibrate->callback([calibrate, o, done = std::move(done)] {
    o->bench = calibrate->remaining();
    const StatusOr<ExitCode> code = Calibrate(*o);
    if (!code.ok()) ClearLaunches();
    done(code.ok() ? *code : Refuse(code.status()));
  });
}

}  // namespace shardproof
