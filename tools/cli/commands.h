// The commands, one file each.
#ifndef SHARDPROOF_TOOLS_CLI_COMMANDS_H_
#define SHARDPROOF_TOOLS_CLI_COMMANDS_H_

#include <string>

#include "tools/cli/exit_code.h"
#include "tools/cli/options.h"

namespace shardproof {

// Cases with their axes, variants and mutants; as JSON if `as_json`.
ExitCode RunList(const Options& options, bool as_json);
// Conformance of everything chosen.
ExitCode RunVerify(const Options& options);
// Measurement; each instance is verified first.
ExitCode RunBench(const Options& given);
// The main job: verify, then measure at the sizes of a model.
ExitCode RunMain(const Options& given);
// Planted faults against every case: the kill matrix.
ExitCode RunMutants(const Options& options);
// What each rank holds, what is sent, what it costs.
ExitCode RunExplain(const Options& options, const std::string& case_name);
// What is usable here, and why the rest is not.
ExitCode RunDoctor(const Options& options);

// Prints the error as one sentence (on the leading process) and gives its code.
ExitCode Refuse(const Status& status);

}  // namespace shardproof

#endif  // SHARDPROOF_TOOLS_CLI_COMMANDS_H_
