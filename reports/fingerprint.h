// The machine and the software of a run, typed and allow-listed: the
// environment is never dumped, since secrets leak that way.
//
//     Fingerprint f = FingerprintFromJson(results.header["environment"]);
//     MachineId(f)   // Hardware only: whose measurements may be compared.
//     EpochId(f)     // Driver, CUDA, NCCL, MPI, kernel, governor, variables:
//                    // a change starts an epoch of the history.
//
// Contract: what a file does not say is empty or 0, and never an error;
// FingerprintFromJson(ToJson(f)) == f, where each variable is named once.
#ifndef SHARDPROOF_REPORTS_FINGERPRINT_H_
#define SHARDPROOF_REPORTS_FINGERPRINT_H_

#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <utility>
#include <vector>

namespace shardproof {

struct Gpu {
  std::string name = {};
  int64_t memory_bytes = 0;
  friend bool operator==(const Gpu&, const Gpu&) = default;
};

// Taken before and after the measurements: what may have disturbed them. The
// shares are of the processors' time since the measurements began, and so 0
// before them; the events are counted since the machine started.
struct Conditions {
  double load = 0;              // 1-minute load average.
  double steal_share = 0;       // Taken by other virtual machines.
  double busy_share = 0;        // Taken by other processes of this machine.
  int64_t throttle_events = 0;  // Thermal, all cores.
  double mhz = 0;               // Mean clock; 0: not known.
  friend bool operator==(const Conditions&, const Conditions&) = default;
};

struct Fingerprint {
  std::string host = {}, cpu = {}, kernel = {};
  int cores = 0;
  int64_t memory_bytes = 0;
  std::string topology = {};  // Hash of hwloc's tree: caches, cores, NUMA.
  std::string governor = {};  // "performance"; empty where there is none.
  std::vector<Gpu> gpus = {};
  std::string driver = {}, cuda = {}, nccl = {}, mpi = {}, compiler = {};
  std::string version = {};  // Of this program.
  std::string binary = {};   // Hash of the executable, 16 hexadecimal digits.
  std::string label = {};    // --label: a commit or a build number.
  std::vector<std::pair<std::string, std::string>> variables = {};
  friend bool operator==(const Fingerprint&, const Fingerprint&) = default;
};

nlohmann::ordered_json ToJson(const Fingerprint& fingerprint);
Fingerprint FingerprintFromJson(const nlohmann::ordered_json& json);
nlohmann::ordered_json ToJson(const Conditions& conditions);
Conditions ConditionsFromJson(const nlohmann::ordered_json& json);

// Of processor, cores, memory (to the nearest GiB: kernels keep some of it to
// themselves), topology and GPUs; not of the host's name, which containers
// change. 16 hexadecimal digits, of FNV-1a (Fowler, Noll, Vo; 64 bits): it
// tells runs apart and withstands no forgery. A member that is empty does not
// count.
std::string MachineId(const Fingerprint& fingerprint);
std::string EpochId(const Fingerprint& fingerprint);
// "Open MPI v4.1.4 -> v4.1.5; NCCL_ALGO none -> Ring": what of the epoch
// differs, for a label; empty where nothing does.
std::string EpochChange(const Fingerprint& before, const Fingerprint& after);

// One for each member, and for each variable, that is not the same.
struct Difference {
  std::string field = {}, before = {}, after = {};
  bool machine = false;  // Part of MachineId: not comparable.
  bool epoch = false;    // Part of EpochId.
  friend bool operator==(const Difference&, const Difference&) = default;
};
std::vector<Difference> Differences(const Fingerprint& before,
                                    const Fingerprint& after);

}  // namespace shardproof

#endif  // SHARDPROOF_REPORTS_FINGERPRINT_H_
