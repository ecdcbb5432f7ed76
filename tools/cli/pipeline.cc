#include "tools/cli/pipeline.h"

#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cerrno>
#include <charconv>
#include <cstring>
#include <fstream>
#include <iterator>
#include <utility>
#include <vector>

#include "pipeline/drawing.h"
#include "pipeline/registry.h"
#include "pipeline/schedule_csv.h"
#include "pipeline/speed/sleeping_run.h"
#include "pipeline/trace.h"
#include "pipeline/validator.h"
#include "tools/cli/commands.h"

namespace shardproof {
namespace {

ExitCode ListSchedules() {
  fmt::print("{:<14} {}\n", "schedule", "what (source)");
  for (const ScheduleInfo& info : Schedules()) {
    fmt::print("{:<14} {}{} ({})\n", info.name, info.what,
               info.takes_chunks ? "; takes --chunks" : "", info.source);
  }
  return kExitPass;
}

StatusOr<std::string> ReadFile(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  std::string text((std::istreambuf_iterator<char>(in)),
                   std::istreambuf_iterator<char>());
  if (!in && text.empty()) {
    return DataLoss("cannot read {}: {}", path, std::strerror(errno));
  }
  return text;
}

Status WriteFile(const std::string& path, const std::string& text) {
  std::ofstream out(path, std::ios::binary);
  out << text;
  out.close();
  if (out) return OkStatus();
  return DataLoss("cannot write {}: {}", path, std::strerror(errno));
}

// What it is worth, below its drawing. The bubble is idle over total time of all
// ranks, which others give over ideal time.
void PrintFacts(const Schedule& schedule, const Simulation& s) {
  double busy = 0, least = s.peak[0], most = s.peak[0];
  for (size_t r = 0; r < s.busy.size(); ++r) {
    busy += s.busy[r];
    least = std::min(least, s.peak[r]);
    most = std::max(most, s.peak[r]);
  }
  const double total = s.makespan * schedule.ranks();
  fmt::print(
      "takes {:.4g}, idle {:.1f} % of the time of all ranks ({:.1f} % of what "
      "they compute)\n",
      s.makespan, 100 * (total - busy) / total, 100 * (total - busy) / busy);
  fmt::print("a rank holds {:.4g} to {:.4g} activations at most; {} messages\n",
             least, most, s.messages);
  for (const MessageSemantics semantics :
       {MessageSemantics::kBuffered, MessageSemantics::kGrouped,
        MessageSemantics::kBlocking}) {
    const Status valid = ValidateSchedule(schedule, semantics);
    fmt::print("{} messages: {}\n", Name(semantics),
               valid.ok() ? "runs" : valid.message());
  }
}

StatusOr<std::string> FileOf(const Schedule& schedule, const Simulation& s,
                             const std::string& path) {
  if (path.ends_with(".svg")) return DrawSvg(schedule, s);
  if (path.ends_with(".csv")) return ToCsv(schedule);
  return InvalidArgument("{} ends neither in .svg nor in .csv", path);
}

Status CheckMemory(const Schedule& schedule, const Simulation& s,
                   double limit) {
  for (size_t rank = 0; limit > 0 && rank < s.peak.size(); ++rank) {
    // Sums of thirds and the like round: a limit that is met exactly is met.
    if (s.peak[rank] <= limit * (1 + 1e-9)) continue;
    return InvalidArgument("{}: rank {} holds {:.4g}, more than {:.4g}",
                           schedule.name, rank, s.peak[rank], limit);
  }
  return OkStatus();
}

// The unit of a drawing: the shortest action.
double UnitOf(const Schedule& schedule, const Simulation& s) {
  double unit = s.makespan;
  for (const auto& times : s.times) {
    for (const TimeSpan& t : times) {
      if (t.end > t.start) unit = std::min(unit, t.end - t.start);
    }
  }
  return schedule.ranks() > 0 && unit > 0 ? unit : 1;
}

StatusOr<Schedule> Build(const PipelineOptions& options) {
  SP_ASSIGN_OR_RETURN(
      Schedule schedule,
      BuildSchedule(options.schedule,
                    {options.stages, options.micro_batches, options.chunks,
                     options.memory_limit, options.costs}));
  SP_RETURN_IF_ERROR(ValidateSchedule(schedule, MessageSemantics::kBuffered));
  return schedule;
}

Status Draw(const PipelineOptions& options) {
  SP_ASSIGN_OR_RETURN(const Schedule schedule, Build(options));
  SP_ASSIGN_OR_RETURN(const Simulation simulation,
                      Simulate(schedule, options.costs));
  SP_RETURN_IF_ERROR(CheckMemory(schedule, simulation, options.memory_limit));
  fmt::print("{}",
             DrawText(schedule, simulation, UnitOf(schedule, simulation)));
  PrintFacts(schedule, simulation);
  if (options.output.empty()) return OkStatus();
  SP_ASSIGN_OR_RETURN(const std::string file,
                      FileOf(schedule, simulation, options.output));
  SP_RETURN_IF_ERROR(WriteFile(options.output, file));
  fmt::print("wrote {}\n", options.output);
  return OkStatus();
}

// Of "2ms".
StatusOr<double> SecondsOf(const std::string& text) {
  constexpr std::pair<std::string_view, double> kUnits[] = {
      {"us", 1e-6}, {"ms", 1e-3}, {"s", 1}};
  double value = 0;
  const char* const end = text.data() + text.size();
  const auto [at, error] = std::from_chars(text.data(), end, value);
  for (const auto& [name, seconds] : kUnits) {
    if (error != std::errc() || std::string_view(at, end) != name) continue;
    // Not where it is no number.
    if (value * seconds >= 1e-6 && value * seconds <= 3600) {
      return value * seconds;
    }
  }
  return InvalidArgument(
      "--unit {}: not a time of 1us to an hour, such as 500us, 2ms or 1s",
      text);
}

constexpr int kMeasuredSteps = 3;

// What would take too long, or is not what the executor does.
Status CheckMeasurable(const PipelineOptions& options, const Simulation& s,
                       double unit) {
  constexpr int kMostRanks = 64;
  constexpr double kMostSeconds = 600;
  if (options.costs.latency > 0) {
    return InvalidArgument(
        "--latency and --measure: messages of a run take what they take");
  }
  if (options.costs.overlapped.has_value()) {
    return InvalidArgument(
        "--overlapped and --measure: a rank that runs computes a pair one "
        "after the other");
  }
  if (options.stages > kMostRanks) {
    return InvalidArgument(
        "--measure runs each rank as a thread, at most {} of them, not {}",
        kMostRanks, options.stages);
  }
  if (s.makespan <= 0) {
    return InvalidArgument("--measure: with these costs nothing takes time");
  }
  const double seconds = (1 + kMeasuredSteps) * s.makespan * unit;
  if (seconds <= kMostSeconds) return OkStatus();
  return InvalidArgument(
      "--measure: {} steps of {:.4g} s are more than {:.0f} s: a shorter "
      "--unit "
      "than {}, or smaller costs",
      1 + kMeasuredSteps, s.makespan * unit, kMostSeconds, options.unit);
}

// The step whose time is the median one, from 0 on; says what it took.
StatusOr<ActionTimes> Measure(const Schedule& schedule,
                              const PipelineOptions& options,
                              const Simulation& simulation, double unit) {
  SP_RETURN_IF_ERROR(CheckMeasurable(options, simulation, unit));
  SP_ASSIGN_OR_RETURN(const std::vector<ActionTimes> steps,
                      RunSleeping(schedule, {.costs = options.costs,
                                             .seconds = unit,
                                             .steps = kMeasuredSteps}));
  ActionTimes times = MedianStep(steps);
  const TimeSpan span = SpanOf(times);
  for (std::vector<TimeSpan>& of_rank : times) {
    for (TimeSpan& t : of_rank) t = {t.start - span.start, t.end - span.start};
  }
  const double measured = span.end - span.start;
  const double predicted = simulation.makespan * unit;
  fmt::print(
      "a step took {:.4g} ms (the median of {}), and {:.4g} ms were predicted: "
      "{:+.4g} ms, {:+.1f} %\n",
      1e3 * measured, kMeasuredSteps, 1e3 * predicted,
      1e3 * (measured - predicted), 100 * (measured / predicted - 1));
  return times;
}

Status Trace(const PipelineOptions& options) {
  SP_ASSIGN_OR_RETURN(const double unit, SecondsOf(options.unit));
  SP_ASSIGN_OR_RETURN(const Schedule schedule, Build(options));
  SP_ASSIGN_OR_RETURN(const Simulation simulation,
                      Simulate(schedule, options.costs));
  SP_RETURN_IF_ERROR(CheckMemory(schedule, simulation, options.memory_limit));
  std::vector<TraceProcess> lanes = {
      {.name = "predicted", .times = simulation.times, .seconds = unit}};
  if (options.measure) {
    SP_ASSIGN_OR_RETURN(ActionTimes times,
                        Measure(schedule, options, simulation, unit));
    lanes.push_back({.name = "measured", .times = std::move(times)});
  }
  SP_ASSIGN_OR_RETURN(const std::string trace, ChromeTrace(schedule, lanes));
  SP_RETURN_IF_ERROR(WriteFile(options.output, trace));
  fmt::print("wrote {}: open it in ui.perfetto.dev\n", options.output);
  return OkStatus();
}

Status Check(const PipelineOptions& options) {
  SP_ASSIGN_OR_RETURN(const std::string text, ReadFile(options.file));
  StatusOr<Schedule> schedule = FromCsv(text, options.file);
  if (!schedule.ok()) return schedule.status().WithContext(options.file);
  if (Status valid = ValidateSchedule(*schedule, MessageSemantics::kBuffered);
      !valid.ok()) {
    return DataLoss("{}: {}", options.file, valid.message());
  }
  SP_ASSIGN_OR_RETURN(const Simulation simulation,
                      Simulate(*schedule, options.costs));
  SP_RETURN_IF_ERROR(CheckMemory(*schedule, simulation, options.memory_limit));
  fmt::print("{}",
             DrawText(*schedule, simulation, UnitOf(*schedule, simulation)));
  PrintFacts(*schedule, simulation);
  return OkStatus();
}

void AddShape(CLI::App& app, PipelineOptions& options) {
  app.add_option("--schedule", options.schedule,
                 "Which (see pipeline list; default one_f_one_b)");
  app.add_option("--stages", options.stages, "Ranks of the pipeline (4)")
      ->check(CLI::Range(1, 4096));
  app.add_option("--microbatches", options.micro_batches, "Of a step (8)")
      ->check(CLI::Range(1, 65536));
  app.add_option("--chunks", options.chunks, "Of each rank (1)")
      ->check(CLI::Range(1, 1024));
}

void AddCosts(CLI::App& app, PipelineOptions& options) {
  const auto cost = [&](const char* flag, double& value, const char* what) {
    app.add_option(flag, value, what)->check(CLI::NonNegativeNumber);
  };
  cost("--forward", options.costs.forward,
       "Time of a forward pass through a rank's share (1)");
  cost("--input", options.costs.input,
       "Time of the backward pass of its inputs (1)");
  cost("--weight", options.costs.weight,
       "Time of the backward pass of its weights (1)");
  cost("--latency", options.costs.latency, "Time of a message (0)");
  app.add_option("--overlapped", options.costs.overlapped,
                 "Time of the forward and the backward pass of a pair at once "
                 "(default: one after the other)")
      ->check(CLI::NonNegativeNumber);
  cost("--memory-limit", options.memory_limit,
       "The most that a rank may hold, in activations of a micro-batch; what "
       "zb_auto is searched for with (0: no limit; zb_auto as many as ranks)");
}

}  // namespace

void AddPipelineCommands(CLI::App& app, PipelineOptions& options,
                         std::function<void(ExitCode)> done) {
  app.require_subcommand(1);
  const auto finish = [done = std::move(done)](const Status& status) {
    done(status.ok() ? kExitPass : Refuse(status));
  };
  app.add_subcommand("list", "The schedules that there are")
      ->callback([finish] {
        ListSchedules();
        finish(OkStatus());
      });
  CLI::App* draw = app.add_subcommand(
      "draw", "A schedule over time, what it is worth, and where it deadlocks");
  AddShape(*draw, options);
  AddCosts(*draw, options);
  draw->add_option("-o,--output", options.output,
                   "A file to draw to (.svg) or to write the table to (.csv)");
  draw->callback([&options, finish] { finish(Draw(options)); });
  CLI::App* trace = app.add_subcommand(
      "trace",
      "A schedule over time for ui.perfetto.dev, as predicted and as measured");
  AddShape(*trace, options);
  AddCosts(*trace, options);
  trace->add_option("-o,--output", options.output, "The file to write (.json)")
      ->required();
  trace->add_option("--unit", options.unit,
                    "What a unit of the costs is: 500us, 2ms, 1s (1ms)");
  trace->add_flag(
      "--measure", options.measure,
      "Also run it, on threads whose stages sleep as long as they "
      "cost, and show both; the longer a unit, the less else counts");
  trace->callback([&options, finish] { finish(Trace(options)); });
  CLI::App* check = app.add_subcommand(
      "check", "Proves that a schedule in a .csv file runs, or says why not");
  check->add_option("file", options.file, "A row for each rank: 0F0,0B0,..")
      ->required();
  AddCosts(*check, options);
  check->callback([&options, finish] { finish(Check(options)); });
  AddPipelineMesh(app, options.mesh, finish);
}

}  // namespace shardproof
