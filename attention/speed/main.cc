// What rings of attention do on this machine:
//
//     bazel run //attention:ring_speed                      every question
//     bazel run //attention:ring_speed -- --ranks 8 length
//
// Give it cores of its own: ranks that wait spin.
#include <fmt/core.h>

#include <CLI/CLI.hpp>
#include <cstdio>
#include <string>
#include <vector>

#include "attention/speed/ring_speed.h"

namespace shardproof {
namespace {

Status Answer(const std::string& question, const RingSpeedOptions& options) {
  if (question == "balance") return BalanceSpeed(options);
  if (question == "overlap") return OverlapSpeed(options);
  return LengthSpeed(options);
}

int Main(int argc, char** argv) {
  CLI::App app("What rings of attention do on this machine");
  RingSpeedOptions options;
  std::string dtype = "bf16";
  std::vector<std::string> questions;
  app.add_flag("--smoke", options.smoke, "Tiny shapes, one round");
  app.add_option("--rounds", options.rounds, "Timed rounds of each comparison")
      ->check(CLI::Range(1, 1000))
      ->capture_default_str();
  app.add_option("--ranks", options.ranks,
                 "Ranks (default: 4 for balance, 2 for overlap, 8 for length)")
      ->check(CLI::Range(1, 64));
  app.add_option("--tokens", options.tokens,
                 "Tokens of the sequence (default: 8192; length: 131072)")
      ->check(CLI::Range(int64_t{1}, int64_t{1} << 24));
  app.add_option("--heads", options.heads,
                 "Query heads, of one KV head (default: 4; length: 2)")
      ->check(CLI::Range(1, 1024));
  app.add_option("--head-dim", options.head_dim, "Numbers of a head")
      ->check(CLI::Range(1, 1024))
      ->capture_default_str();
  app.add_option("--dtype", dtype, "f32, bf16 or f16")
      ->check(CLI::IsMember({"f32", "bf16", "f16"}))
      ->capture_default_str();
  app.add_option("questions", questions, "Which (default: all)")
      ->check(CLI::IsMember({"balance", "overlap", "length"}));
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return app.exit(error) == 0 ? 0 : 2;
  }
  options.dtype = *ParseDType(dtype);
  if (options.smoke) options.rounds = 1;
  if (questions.empty()) questions = {"balance", "overlap", "length"};
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
