// Signals: Ctrl-C ends a run in order, a crash names its rank.
#ifndef SHARDPROOF_TOOLS_CLI_INTERRUPT_H_
#define SHARDPROOF_TOOLS_CLI_INTERRUPT_H_

#include <string_view>

namespace shardproof {

// From now on the first SIGINT or SIGTERM sets Interrupted() and the second
// ends the process at once with 130; SIGSEGV, SIGBUS, SIGFPE, SIGILL and
// SIGABRT print which rank crashed in what, and end it with 6.
void InstallSignalHandlers();
bool Interrupted();
// What a crash message says is under way: "collectives/all_reduce ring
// dtype=f32 count=7". Truncated to 255 bytes.
void SetUnderWay(std::string_view what);

}  // namespace shardproof

#endif  // SHARDPROOF_TOOLS_CLI_INTERRUPT_H_
