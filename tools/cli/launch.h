// One launch: `shardproof bench` in fresh processes, and what it wrote.
//
//     LaunchRequest r{.binary = "/path/shardproof", .arguments = {"--ranks", "2"}};
//     SP_ASSIGN_OR_RETURN(Launch launch, RunLaunch(r, folder));
//
// The unit of replication: processes, communicators and memory are new each
// time, so that what one launch happens to get (pages, cores) is drawn anew.
#ifndef SHARDPROOF_TOOLS_CLI_LAUNCH_H_
#define SHARDPROOF_TOOLS_CLI_LAUNCH_H_

#include <map>
#include <string>
#include <utility>
#include <vector>

#include "reference/status.h"
#include "reports/report.h"
#include "tools/cli/plan.h"

namespace shardproof {

struct LaunchRequest {
  std::string binary = {};
  std::vector<std::string> launcher = {};   // {"mpirun", "-np", "2"} or none.
  std::vector<std::string> arguments = {};  // Of bench.
  // NAME=VALUE, added to the environment.
  std::vector<std::string> environment = {};
  const Plan* plan = nullptr;  // Null: everything that is chosen.
  double timeout_seconds = 0;  // 0: none.
};

struct Launched {
  Launch launch = {};
  double seconds = 0;  // That it ran.
  int exit_code = 0;   // bench's: 1 with wrong results, which are records.
};

// Runs it in `folder` (for its files) and waits. Errors: a binary that does not
// start (kUnavailable), arguments that it refuses (kInvalidArgument, with its
// own sentence), one that ends without a result file (kAborted, with the last
// lines that it printed), the timeout (kTimeout), an interrupt of this process
// (kAborted; the launch is ended first).
StatusOr<Launched> RunLaunch(const LaunchRequest& request,
                             const std::string& folder);

// Two launches next to each other in time: each runs for `turn_seconds` while
// the other is stopped (SIGSTOP), and so on until both have ended. What slows
// the machine down for longer than a turn hits both alike. Errors: those of
// RunLaunch; the timeout is that of both together.
StatusOr<std::pair<Launched, Launched>> RunInTurns(const LaunchRequest& first,
                                                   const LaunchRequest& second,
                                                   double turn_seconds,
                                                   const std::string& folder);

// Whether stopping the process stops the launch: it has no launcher and no
// backend but threads. (A GPU would go on; so would the ranks of other nodes.)
bool CanTakeTurns(const LaunchRequest& request);

// A folder that is removed with everything in it.
class TemporaryFolder {
 public:
  TemporaryFolder() = default;  // None.
  static StatusOr<TemporaryFolder> Create(const std::string& name);
  TemporaryFolder(TemporaryFolder&& other) noexcept;
  TemporaryFolder& operator=(TemporaryFolder&& other) noexcept;
  ~TemporaryFolder();
  const std::string& path() const { return path_; }

 private:
  explicit TemporaryFolder(std::string path) : path_(std::move(path)) {}
  std::string path_;
};

// This program's own file.
std::string OwnBinary();

}  // namespace shardproof

#endif  // SHARDPROOF_TOOLS_CLI_LAUNCH_H_
