// shardproof pipeline: schedules as lists, drawings, traces and tables, and meshes.
#ifndef SHARDPROOF_TOOLS_CLI_PIPELINE_H_
#define SHARDPROOF_TOOLS_CLI_PIPELINE_H_

#include <functional>
#include <string>

#include "pipeline/simulator.h"
#include "tools/cli/app_fwd.h"
#include "tools/cli/exit_code.h"
#include "tools/cli/pipeline_mesh.h"

namespace shardproof {

struct PipelineOptions {
  std::string schedule = "one_f_one_b";
  int stages = 4;
  int micro_batches = 8;
  int chunks = 1;
  double memory_limit = 0;  // 0: none, or what a search takes without.
  StageCosts costs;
  std::string output;  // .svg or .csv, empty: none; of a trace, .json.
  std::string file;    // To check.
  // Of a trace.
  std::string unit = "1ms";  // Of the costs.
  bool measure = false;
  PipelineMeshOptions mesh;
};

// list, draw, trace, check and mesh, which give their exit code to `done`. `options` must
// live until the line is parsed.
void AddPipelineCommands(CLI::App& app, PipelineOptions& options,
                         std::function<void(ExitCode)> done);

}  // namespace shardproof

#endif  // SHARDPROOF_TOOLS_CLI_PIPELINE_H_
