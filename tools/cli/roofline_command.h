// shardproof roofline: kernels of GPUs, held against what the GPU can do.
//
// The name is the field's (Williams, Waterman and Patterson, 2009): ceilings that are measured on the machine, and kernels
// under them. Rejected: `kernels`, which says what is measured and not against what; `bench`, whose cases have ranks.
#ifndef SHARDPROOF_TOOLS_CLI_ROOFLINE_COMMAND_H_
#define SHARDPROOF_TOOLS_CLI_ROOFLINE_COMMAND_H_

#include <cstdint>
#include <functional>
#include <vector>

#include "tools/cli/app_fwd.h"
#include "tools/cli/exit_code.h"
#include "tools/cli/options.h"

namespace shardproof {

struct RooflineOptions {
  Options common;
  int64_t tokens = 0, hidden = 0;  // 0: the model's.
  std::vector<int64_t> sequences = {};
  bool hot = false;
  int gpu = 0;
};

// The command, which gives its exit code to `done`. `common` has the command line.
void AddRooflineCommand(CLI::App& app, Options& common,
                        const std::function<void(ExitCode)>& done);

}  // namespace shardproof

#endif  // SHARDPROOF_TOOLS_CLI_ROOFLINE_COMMAND_H_
