// The bubble of each schedule when it runs, beside the simulated one:
//
//     bazel run //pipeline:bubble                        every schedule
//     bazel run //pipeline:bubble -- --ranks 8 zb_h1
//
// It exits with 1 where one of them, or a step, is more than 10 percent off.
#include <fmt/core.h>

#include <CLI/CLI.hpp>
#include <cmath>
#include <cstdio>
#include <string>
#include <vector>

#include "pipeline/registry.h"
#include "pipeline/speed/bubble.h"

namespace shardproof {
namespace {

constexpr double kMostOff = 0.1;

// Whether it is as predicted. What a schedule refuses is an error where it was
// asked for by its name.
StatusOr<bool> Print(const ScheduleInfo& info, int chunks, bool named,
                     const BubbleOptions& options) {
  const StatusOr<Schedule> schedule =
      BuildSchedule(info.name, {options.ranks, options.micro_batches, chunks});
  if (!schedule.ok()) {
    fmt::print("{:15}{:6}  {}\n", info.name, chunks,
               schedule.status().message());
    if (named) return schedule.status();
    return true;
  }
  SP_ASSIGN_OR_RETURN(const BubbleResult r, MeasureBubble(*schedule, options));
  const bool good = std::abs(r.BubbleError()) <= kMostOff &&
                    std::abs(r.StepError()) <= kMostOff;
  fmt::print(
      "{:15}{:6}{:10.2f}%{:10.2f}%{:+8.1f}%{:12.1f}{:11.1f}{:+8.1f}%{:9.0f}{}"
      "\n",
      info.name, chunks, 100 * r.bubble, 100 * r.predicted_bubble,
      100 * r.BubbleError(), 1e3 * r.step, 1e3 * r.predicted_step,
      100 * r.StepError(), 1e6 * r.link, good ? "" : "  OFF");
  std::fflush(stdout);
  return good;
}

// Whether all are.
StatusOr<bool> PrintAll(const std::vector<std::string>& names,
                        const BubbleOptions& options) {
  fmt::print(
      "{} ranks, {} micro-batches; F {} ms, I {} ms, W {} ms of a rank; the "
      "bubble is idle / total\n\n"
      "{:21}{:>31}{:>31}{:>10}\n{:15}{:>6}{:>11}{:>11}{:>9}{:>12}{:>11}{:>9}"
      "{:>8}\n",
      options.ranks, options.micro_batches, options.forward, options.input,
      options.weight, "", "bubble", "step, ms", "link, us", "schedule",
      "chunks", "measured", "simulated", "error", "measured", "simulated",
      "error", "");
  bool all = true;
  for (const ScheduleInfo& info : Schedules()) {
    bool wanted = names.empty();
    for (const std::string& name : names) wanted = wanted || name == info.name;
    if (!wanted) continue;
    for (int chunks = 1; chunks <= (info.takes_chunks ? 2 : 1); ++chunks) {
      SP_ASSIGN_OR_RETURN(const bool good,
                          Print(info, chunks, !names.empty(), options));
      all = all && good;
    }
  }
  return all;
}

int Main(int argc, char** argv) {
  CLI::App app("The bubble of pipeline schedules, measured and simulated");
  BubbleOptions options;
  std::vector<std::string> names;
  bool smoke = false;
  app.add_flag("--smoke", smoke, "Short sleeps, one round, nothing judged");
  app.add_option("--ranks", options.ranks, "Ranks: one alone has no bubble")
      ->check(CLI::Range(2, 64))
      ->capture_default_str();
  app.add_option("--micro-batches", options.micro_batches,
                 "Micro-batches (default: 2 for each rank)")
      ->check(CLI::Range(1, 1024));
  app.add_option("--rounds", options.rounds,
                 "Steps, of which one is the median")
      ->check(CLI::Range(1, 1000))
      ->capture_default_str();
  for (const auto& [name, milliseconds] :
       {std::pair("--forward", &options.forward),
        std::pair("--input", &options.input),
        std::pair("--weight", &options.weight)}) {
    app.add_option(name, *milliseconds, "Milliseconds of a rank's share")
        ->check(CLI::Range(0.01, 1e4))
        ->capture_default_str();
  }
  app.add_option("--bytes", options.bytes, "Of a message")
      ->check(CLI::Range(int64_t{0}, int64_t{1} << 30))
      ->capture_default_str();
  app.add_option("schedules", names, "Which (default: all)")
      ->check(CLI::Validator(
          [](const std::string& name) {
            return FindSchedule(name) != nullptr
                       ? std::string()
                       : "there is no schedule " + name;
          },
          "NAME"));
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return app.exit(error) == 0 ? 0 : 2;
  }
  if (options.micro_batches == 0) options.micro_batches = 2 * options.ranks;
  if (smoke) {
    options.rounds = 1;
    options.forward = options.input = options.weight = 0.2;
  }
  const StatusOr<bool> good = PrintAll(names, options);
  if (!good.ok()) {
    fmt::print(stderr, "{}\n", good.status().ToString());
    return 1;
  }
  return *good || smoke ? 0 : 1;
}

}  // namespace
}  // namespace shardproof

int main(int argc, char** argv) { return shardproof::Main(argc, argv); }
