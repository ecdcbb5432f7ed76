// What the process tells its caller.
#ifndef SHARDPROOF_TOOLS_CLI_EXIT_CODE_H_
#define SHARDPROOF_TOOLS_CLI_EXIT_CODE_H_

#include "reference/status.h"

namespace shardproof {

enum ExitCode : int {
  kExitPass = 0,
  kExitMismatch = 1,      // A wrong number, or a planted fault that survived.
  kExitUsage = 2,         // Flags, files or parameters that cannot be meant.
  kExitRegression = 3,    // A confirmed slow-down.
  kExitInconclusive = 4,  // Where this was asked for.
  kExitInvalid = 5,       // Measurements or results that cannot be used.
  kExitBackend = 6,       // Launcher, MPI, CUDA or NCCL; a rank that crashed.
  kExitHang = 124,        // The watchdog.
  kExitInterrupted = 130  // SIGINT, SIGTERM.
};

// Of two reasons to fail, the one to report: 130 > 2 > 1 > 124 > 6 > 5 > 3 > 4
// > 0. A usage error and an interrupt end the command and so are never hidden.
ExitCode Worse(ExitCode a, ExitCode b);

// For an error that ends a command.
ExitCode ExitCodeOf(const Status& status);

}  // namespace shardproof

#endif  // SHARDPROOF_TOOLS_CLI_EXIT_CODE_H_
