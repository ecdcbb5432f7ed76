// What parallel layers gain on this machine, side by side:
//
//     bazel run //layers:parallel_speed                     every question
//     bazel run //layers:parallel_speed -- --rounds 21 zero_prefetch
//
// Give it cores of its own: ranks that wait spin.
#include <fmt/core.h>

#include <CLI/CLI.hpp>
#include <cstdio>
#include <string>
#include <vector>

#include "layers/speed/parallel_speed.h"

namespace shardproof {
namespace {

Status Answer(const std::string& question, const SpeedOptions& options) {
  if (question == "gradient_overlap") return GradientOverlapSpeed(options);
  if (question == "zero_prefetch") return ZeroPrefetchSpeed(options);
  SP_RETURN_IF_ERROR(TensorParallelSpeed(DType::kBF16, options));
  return TensorParallelSpeed(DType::kF32, options);
}

int Main(int argc, char** argv) {
  CLI::App app("What parallel layers gain on this machine, side by side");
  SpeedOptions options;
  std::vector<std::string> questions;
  app.add_flag("--smoke", options.smoke, "Tiny shapes, one round");
  app.add_option("--rounds", options.rounds, "Timed rounds of each comparison")
      ->check(CLI::Range(1, 1000))
      ->capture_default_str();
  app.add_option("--ranks", options.ranks, "Ranks, one core each")
      ->check(CLI::Range(2, 32))
      ->capture_default_str();
  app.add_option("questions", questions, "Which (default: all)")
      ->check(CLI::IsMember(
          {"tensor_parallel", "gradient_overlap", "zero_prefetch"}));
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return app.exit(error) == 0 ? 0 : 2;
  }
  if (options.smoke) options.rounds = 1;
  if (questions.empty()) {
    questions = {"tensor_parallel", "gradient_overlap", "zero_prefetch"};
  }
  for (const std::string& question : questions) {
    const Status answered = Answer(question, options);
    if (!answered.ok()) {
      fmt::print(stderr, "{}: {}\n", question, answered.ToString());
      return 1;
    }
    std::fflush(stdout);
  }
  return 0;
}

}  // namespace
}  // namespace shardproof

int main(int argc, char** argv) { return shardproof::Main(argc, argv); }
