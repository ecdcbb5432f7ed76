// The flags that the commands share.
#ifndef SHARDPROOF_TOOLS_CLI_OPTIONS_H_
#define SHARDPROOF_TOOLS_CLI_OPTIONS_H_

#include <cstdint>
#include <string>
#include <vector>

#include "layers/models/parallelism.h"
#include "tools/cli/app_fwd.h"
#include "tools/harness/axis.h"
#include "tools/harness/measure.h"

namespace shardproof {

struct Options {
  std::string backend;     // Empty: mpi under a launcher, else thread.
  std::vector<int> ranks;  // Empty: the command's default.
  std::string filter = ".*";
  std::vector<std::string> axis;  // "name=v1,v2", as given.
  std::string dtype, variant;
  std::string mesh;            // "tp=2,pp=4"; empty: none.
  std::string model;           // A built-in name or a file; empty: none.
  models::Parallelism layout;  // tp 0: as many as there are ranks.
  uint64_t seed = 1;
  std::string json;  // Empty: no file.
  // Files; empty: what the system has.
  std::string nccl_library, cublaslt_library;
  int emulate_gpus = 0;  // 0: those of the machine.
  bool require_gpu = false;
  double time_budget = 0;  // Seconds; 0: none.
  double timeout = 60;     // Seconds per case; 0: none.
  std::string memory = "shared", cadence = "isolated", fault;
  double seconds = 0;  // Of measuring per instance; 0: the usual.
  int blocks = 1;      // Times that all instances are gone through (blocks.h).
  std::string plan;    // A file (plan.h); empty: everything chosen.
  std::string label;   // Of the build, for the history.
  // The history that takes the records; empty: the usual one if `keep`, else
  // none.
  std::string history;
  bool keep = false, no_history = false;
  bool no_ceilings = false;  // Neither floors nor predictions.
  // nccl-tests.
  std::string min_bytes, max_bytes, step_factor, datatype, reduction;
  int gpus = 1, iterations = 0, warmup = -1, check = 1, root = 0;

  // Everything as it was typed, for the result file and the agreement of ranks.
  std::string command_line;
};

// Which flags a command takes beyond --help.
void AddSelectionFlags(CLI::App& app, Options& options);  // What to run, where.
void AddMeshFlag(CLI::App& app, Options& options);
void AddModelFlags(CLI::App& app, Options& options);
void AddRunFlags(CLI::App& app, Options& options);  // Budget, results, timeout.
void AddMeasureFlags(CLI::App& app, Options& options);
void AddLaunchFlags(CLI::App& app, Options& options);  // Of ab's launches.
void AddNcclTestsFlags(CLI::App& app, Options& options);
void AddGpuFlags(CLI::App& app, Options& options);  // GPUs and NCCL.

// How many ranks to run with: --ranks, else the product of --mesh, else
// `fallback`. kInvalidArgument for a mesh that cannot be read or is not of as
// many ranks, before anything is sent.
StatusOr<std::vector<int>> RanksOf(const Options& options,
                                   const std::vector<int>& fallback);
// --axis, --dtype, --mesh and the flags of nccl-tests, as replacements of axis
// values. kInvalidArgument quotes what cannot be read.
StatusOr<AxisOverrides> OverridesOf(const Options& options);
MeasureOptions MeasureOptionsOf(const Options& options);
// "1Mi" is 1048576; kInvalidArgument otherwise.
StatusOr<int64_t> ParseBytes(const std::string& text);

}  // namespace shardproof

#endif  // SHARDPROOF_TOOLS_CLI_OPTIONS_H_
