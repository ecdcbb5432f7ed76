// The machine and libraries of a run, for the result file and the history.
// Allow-listed: the environment is never dumped, since secrets leak that way.
//
//     Fingerprint f = CollectFingerprint("commit 1a2b3c4");
//
// What cannot be found out is empty: no /sys in a container, no GPU, no MPI.
#ifndef SHARDPROOF_TOOLS_CLI_ENVIRONMENT_H_
#define SHARDPROOF_TOOLS_CLI_ENVIRONMENT_H_

#include <functional>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "reports/fingerprint.h"

namespace shardproof {

// `label` is what --label says. NCCL is the library that is loaded already, if
// one is. `version` and `cuda` are left empty.
Fingerprint CollectFingerprint(const std::string& label = {});
// The same as the member "environment" of result files.
nlohmann::ordered_json Environment(const std::string& label = {});

// The variables that change measurements and are set, in the order of the list
// of their names: NCCL_*, OMPI_MCA_*, UCX_*, OMP_NUM_THREADS and such. mpirun
// sets many more OMPI_MCA_*, keys of the job among them. A value that looks
// like a secret is "(withheld)". `get` is std::getenv.
std::vector<std::pair<std::string, std::string>> AllowedVariables(
    const std::function<const char*(const char*)>& get);
// A password in a URL, something called token, secret, password or key, or 32
// and more letters and digits in a row.
bool LooksSecret(std::string_view value);

// FNV-1a over the words of 64 bits of a file, 16 hexadecimal digits: a large
// library at the speed of its reading. Empty where it cannot be read.
std::string HashFile(const std::string& path);
// Of hwloc's tree: which objects are in which, and the sizes of caches.
std::string TopologyHash();

// "model name" of /proc/cpuinfo.
std::string CpuName();
// Now, ISO 8601, UTC, seconds.
std::string UtcNow();

}  // namespace shardproof

#endif  // SHARDPROOF_TOOLS_CLI_ENVIRONMENT_H_
