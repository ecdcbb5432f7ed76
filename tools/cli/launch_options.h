// The options of commands that launch `bench` in pairs: ab and calibrate.
#ifndef SHARDPROOF_TOOLS_CLI_LAUNCH_OPTIONS_H_
#define SHARDPROOF_TOOLS_CLI_LAUNCH_OPTIONS_H_

#include <string>
#include <vector>

#include "tools/cli/app_fwd.h"
#include "tools/cli/launch.h"

namespace shardproof {

struct LaunchOptions {
  double seconds = 0.1, timeout = 600;
  int blocks = 5;  // blocks.h
  // Shorter than what disturbs a virtual machine, longer than what a process
  // needs to find its cache warm again.
  double turn_milliseconds = 20;
  std::string launcher;

  double turn_seconds() const { return turn_milliseconds / 1000; }
};

void AddLaunchOptions(CLI::App& command, LaunchOptions& options);

// bench of `binary` (empty: this program) with these options, and `bench`'s own
// arguments after them.
LaunchRequest RequestOf(const LaunchOptions& options, const std::string& binary,
                        const std::vector<std::string>& bench);

// "a b  c" is {"a", "b", "c"}.
std::vector<std::string> SplitAtSpaces(const std::string& text);

}  // namespace shardproof

#endif  // SHARDPROOF_TOOLS_CLI_LAUNCH_OPTIONS_H_
