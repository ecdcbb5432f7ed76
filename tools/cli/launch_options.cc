#include "tools/cli/launch_options.h"

#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <sstream>

namespace shardproof {

std::vector<std::string> SplitAtSpaces(const std::string& text) {
  std::istringstream in(text);
  std::vector<std::string> words;
  for (std::string word; in >> word;) words.push_back(word);
  return words;
}

void AddLaunchOptions(CLI::App& command, LaunchOptions& options) {
  command
      .add_option("--seconds", options.seconds,
                  "Of measuring each instance in each launch")
      ->check(CLI::Range(1e-3, 1e4))
      ->capture_default_str();
  command
      .add_option("--blocks", options.blocks,
                  "Parts of these seconds, with everything else in between, of "
                  "which the median counts (1: for builds that do not know it)")
      ->check(CLI::Range(1, 99))
      ->capture_default_str();
  command
      .add_option("--turns", options.turn_milliseconds,
                  "The two launches of a pair take turns of so many "
                  "milliseconds, so that what disturbs the machine disturbs "
                  "both (0: one after the other, as with a launcher or another "
                  "backend than thread)")
      ->check(CLI::Range(0.0, 1e6))
      ->capture_default_str();
  command.add_option("--launcher", options.launcher,
                     "What starts each launch: \"mpirun -np 2\"");
  command
      .add_option("--timeout", options.timeout,
                  "Seconds until a launch counts as hung (0: never)")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
}

LaunchRequest RequestOf(const LaunchOptions& options, const std::string& binary,
                        const std::vector<std::string>& bench) {
  LaunchRequest request;
  request.binary = binary.empty() ? OwnBinary() : binary;
  request.launcher = SplitAtSpaces(options.launcher);
  request.arguments = {"--no-ceilings", "--seconds",
                       fmt::format("{}", options.seconds)};
  if (options.blocks > 1) {
    request.arguments.insert(request.arguments.end(),
                             {"--blocks", fmt::format("{}", options.blocks)});
  }
  request.arguments.insert(request.arguments.end(), bench.begin(), bench.end());
  request.timeout_seconds = options.timeout;
  return request;
}

}  // namespace shardproof
