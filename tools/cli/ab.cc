// shardproof ab: is the candidate slower than the base, how sure are we?
#include <fmt/format.h>
#include <fmt/ranges.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <cstdio>
#include <map>
#include <memory>
#include <optional>
#include <utility>

#include "reports/result_file.h"
#include "reports/store/store.h"
#include "tools/cli/commands.h"
#include "tools/cli/comparison_table.h"
#include "tools/cli/environment.h"
#include "tools/cli/launch_options.h"
#include "tools/cli/pairs.h"
#include "tools/cli/report_commands.h"
#include "tools/cli/session.h"

namespace shardproof {
namespace {

struct AbOptions {
  std::string base, cand, base_library, cand_library, json, history;
  std::vector<std::string> base_environment, cand_environment, bench;
  std::string base_arguments, cand_arguments, command_line;
  Rules rules;
  uint64_t seed = 1;
  double time_budget = 0;
  LaunchOptions launch;
  bool strict = false;
};

LaunchRequest RequestOf(const AbOptions& o, bool base) {
  LaunchRequest request = RequestOf(o.launch, base ? o.base : o.cand, o.bench);
  for (std::string& own :
       SplitAtSpaces(base ? o.base_arguments : o.cand_arguments)) {
    request.arguments.push_back(std::move(own));
  }
  request.environment = base ? o.base_environment : o.cand_environment;
  const std::string& library = base ? o.base_library : o.cand_library;
  if (!library.empty()) request.environment.push_back("LD_PRELOAD=" + library);
  return request;
}

ExitCode ExitCodeOf(const PairedOutcome& outcome, bool strict) {
  ExitCode code = outcome.interrupted ? kExitInterrupted : kExitPass;
  for (const Record& record : outcome.wrong) {
    code = Worse(code, ExitCodeOf(record));
  }
  bool any = false;
  for (const Comparison& c : outcome.comparisons) {
    any = any || c.change != Change::kInvalid;
    if (c.change == Change::kInvalid) code = Worse(code, kExitInvalid);
    if (c.change == Change::kRegressed) code = Worse(code, kExitRegression);
    if (c.change == Change::kInconclusive && strict) {
      code = Worse(code, kExitInconclusive);
    }
  }
  return any ? code : Worse(code, kExitInvalid);
}

Status CheckArms(const AbOptions& o) {
  const bool same_binary = o.base == o.cand;
  if (same_binary && o.base_library == o.cand_library &&
      o.base_environment == o.cand_environment &&
      o.base_arguments == o.cand_arguments) {
    return InvalidArgument(
        "ab compares two things: give --base and --cand two binaries, or the "
        "same one two libraries, environments or arguments (`calibrate` "
        "compares the same against the same)");
  }
  for (const auto& environment : {o.base_environment, o.cand_environment}) {
    for (const std::string& entry : environment) {
      if (entry.find('=') == std::string::npos || entry.front() == '=') {
        return InvalidArgument("{} is not NAME=VALUE", entry);
      }
    }
  }
  for (const std::string& path :
       {o.base, o.cand, o.base_library, o.cand_library}) {
    if (!path.empty() && access(path.c_str(), R_OK) != 0) {
      return InvalidArgument("cannot read {}", path);
    }
  }
  return OkStatus();
}

StatusOr<ExitCode> Ab(const AbOptions& o) {
  SP_RETURN_IF_ERROR(CheckArms(o));
  std::optional<ResultFile> file;
  if (!o.json.empty()) {
    SP_ASSIGN_OR_RETURN(
        file, ResultFile::Create(o.json, {.command = o.command_line,
                                          .started = UtcNow(),
                                          .environment = Environment()}));
  }
  const std::optional<Calibration> calibration = CalibrationHere(o.history);
  PairedRun run;
  run.base = RequestOf(o, true);
  run.cand = RequestOf(o, false);
  run.rules = o.rules;
  run.noise = calibration.has_value() ? calibration->noise : 0;
  run.seed = o.seed;
  run.time_budget = o.time_budget;
  run.turn_seconds = o.launch.turn_seconds();
  run.progress = ShowLaunches;
  SP_ASSIGN_OR_RETURN(const PairedOutcome outcome, RunPairs(run));
  ClearLaunches();
  fmt::print("{}", ComparisonTable(outcome.comparisons));
  for (const Record& record : outcome.wrong) {
    fmt::print("{} {} {}: {}: {}\n  {}\n", record.case_name, record.variant,
               ParamsText(record), Name(record.verdict), record.reason,
               record.repro);
  }
  for (const std::string& note : outcome.notes) fmt::print("{}\n", note);
  fmt::print("{}\n", CalibrationSentence(calibration));
  if (file.has_value()) {
    for (const Record& record : outcome.records) {
      SP_RETURN_IF_ERROR(file->Append(record));
    }
    ResultEnd end{.finished = UtcNow(), .interrupted = outcome.interrupted};
    end.left_out = outcome.notes;
    auto& list = end.sections["comparisons"] = nlohmann::ordered_json::array();
    for (const Comparison& c : outcome.comparisons) list.push_back(ToJson(c));
    end.sections["base_environment"] = ToJson(outcome.base);
    if (calibration.has_value()) {
      end.sections["calibration"] = ToJson(*calibration);
    }
    SP_RETURN_IF_ERROR(file->Finish(end));
    fmt::print("{} comparisons in {}\n", outcome.comparisons.size(), o.json);
  }
  return ExitCodeOf(outcome, o.strict);
}

}  // namespace

void AddAbCommand(CLI::App& app, Done done, std::string command_line) {
  CLI::App* ab = app.add_subcommand(
      "ab",
      "Two builds or libraries in pairs of launches: which cases are slower, "
      "and how sure that is");
  const auto o = std::make_shared<AbOptions>();
  o->command_line = std::move(command_line);
  ab->footer(
      "Everything else goes to `bench`, of both: --filter, --ranks, -b, -e ... "
      "(--filter collectives --ranks 2 -b 1M -e 16M -f 4).\n"
      "Two MPI libraries: --base-env LD_LIBRARY_PATH=/a/lib --cand-env "
      "LD_LIBRARY_PATH=/b/lib --launcher \"mpirun -np 2\" --variant native.");
  ab->allow_extras();
  ab->add_option("--base", o->base,
                 "The build to compare with (default: this one)")
      ->check(CLI::ExistingFile);
  ab->add_option("--cand", o->cand, "The build in question (default: this one)")
      ->check(CLI::ExistingFile);
  ab->add_option("--base-library", o->base_library,
                 "A shared library that the base loads first (LD_PRELOAD)")
      ->check(CLI::ExistingFile);
  ab->add_option("--cand-library", o->cand_library, "The same, the candidate")
      ->check(CLI::ExistingFile);
  ab->add_option("--base-env", o->base_environment,
                 "NAME=VALUE in the environment of the base; repeatable");
  ab->add_option("--cand-env", o->cand_environment, "The same, the candidate");
  ab->add_option("--base-args", o->base_arguments,
                 "Arguments of bench for the base only");
  ab->add_option("--cand-args", o->cand_arguments, "The same, the candidate");
  ab->add_option("--pairs", o->rules.screen_pairs,
                 "Pairs of launches that screen everything")
      ->check(CLI::Range(3, 1000))
      ->capture_default_str();
  ab->add_option("--fresh-pairs", o->rules.fresh_pairs,
                 "Fresh pairs that decide on the suspects")
      ->check(CLI::Range(5, 1000))
      ->capture_default_str();
  AddLaunchOptions(*ab, o->launch);
  ab->add_option("--time-budget", o->time_budget,
                 "Start no pair that would end later than this, in seconds")
      ->check(CLI::NonNegativeNumber);
  ab->add_option("--seed", o->seed, "Of the order within pairs")
      ->capture_default_str();
  ab->add_option("--json", o->json, "Write the comparisons to this file");
  ab->add_option("--history", o->history,
                 "Where this machine's calibration is (default: the usual "
                 "history)");
  ab->add_flag("--strict", o->strict, "Inconclusive comparisons exit with 4");
  ab->callback([ab, o, done = std::move(done)] {
    o->bench = ab->remaining();
    const StatusOr<ExitCode> code = Ab(*o);
    if (!code.ok()) ClearLaunches();
    done(code.ok() ? *code : Refuse(code.status()));
  });
}

}  // namespace shardproof
