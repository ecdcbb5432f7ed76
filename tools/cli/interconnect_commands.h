// shardproof p2p, fit and scale: what the links between ranks are worth.
#ifndef SHARDPROOF_TOOLS_CLI_INTERCONNECT_COMMANDS_H_
#define SHARDPROOF_TOOLS_CLI_INTERCONNECT_COMMANDS_H_

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "reference/status.h"
#include "reports/interconnect.h"
#include "tools/cli/app_fwd.h"
#include "tools/cli/exit_code.h"
#include "tools/cli/options.h"
#include "tools/cli/session.h"

namespace shardproof {

// Latency and bandwidth between all pairs of ranks, one pair at a time.
ExitCode RunP2p(const Options& options);
// Time over size of every chosen variant, fitted and predicted; where one
// becomes faster than another. `tuning`: the file to write what `auto` should
// choose to; empty: none.
ExitCode RunFit(const Options& options, const std::string& tuning);
// Time over the number of ranks, and over that of pairs that exchange at once.
ExitCode RunScale(const Options& options);

// The three as commands of `app`, which give their exit code to `done`.
// `options` must live until the line is parsed.
void AddInterconnectCommands(CLI::App& app, Options& options,
                             const std::function<void(ExitCode)>& done);

// --- What the three have in common -------------------------------------------

// -b, -e and -f as a list of sizes, rising; what is not given comes from the
// defaults. kInvalidArgument: not sizes, or none.
StatusOr<std::vector<int64_t>> SizesOf(const Options& options, int64_t low,
                                       int64_t high, int64_t factor);
// How a single measurement is taken: short, since there are many. -n and -w as
// in nccl-tests.
MeasureOptions LinkTiming(const Options& options, double seconds);
// "node0" or "node0 core 3" where the rank is bound to one, by rank; the same
// on all.
StatusOr<std::vector<std::string>> Places(const Communicator& comm);
// "same node" or "between nodes".
std::string LinkClass(const Topology& topology, int a, int b);
// "23.8 MB/s", of so many bytes in so many us.
std::string RateText(double bytes, double us);
// The sections p2p, fits, crossovers, scaling and findings, those that are not
// empty, into the result file; the findings also to standard output. What was
// measured on emulated GPUs says so.
void Keep(Session& session, Interconnect found);

}  // namespace shardproof

#endif  // SHARDPROOF_TOOLS_CLI_INTERCONNECT_COMMANDS_H_
