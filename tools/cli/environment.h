// The machine and libraries of a run, for the result file. Allow-listed: the
// environment is never dumped, since secrets leak that way.
#ifndef SHARDPROOF_TOOLS_CLI_ENVIRONMENT_H_
#define SHARDPROOF_TOOLS_CLI_ENVIRONMENT_H_

#include <nlohmann/json.hpp>
#include <string>

namespace shardproof {

nlohmann::ordered_json Environment();
// "model name" of /proc/cpuinfo.
std::string CpuName();
// Now, ISO 8601, UTC, seconds.
std::string UtcNow();

}  // namespace shardproof

#endif  // SHARDPROOF_TOOLS_CLI_ENVIRONMENT_H_
