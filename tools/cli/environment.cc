#include "tools/cli/environment.h"

#include <fmt/chrono.h>
#include <sys/utsname.h>
#include <unistd.h>

#include <array>
#include <chrono>
#include <cstdlib>
#include <fstream>
#include <thread>

#include "collectives/backend/mpi/mpi_world.h"

namespace shardproof {

std::string CpuName() {
  std::ifstream in("/proc/cpuinfo");
  for (std::string line; std::getline(in, line);) {
    if (line.rfind("model name", 0) == 0) {
      const size_t colon = line.find(": ");
      if (colon != std::string::npos) return line.substr(colon + 2);
    }
  }
  return "unknown";
}

std::string UtcNow() {
  const auto now = std::chrono::time_point_cast<std::chrono::seconds>(
      std::chrono::system_clock::now());
  return fmt::format("{:%Y-%m-%dT%H:%M:%SZ}",
                     fmt::gmtime(std::chrono::system_clock::to_time_t(now)));
}

nlohmann::ordered_json Environment() {
  nlohmann::ordered_json environment;
  utsname name = {};
  uname(&name);
  environment["host"] = name.nodename;
  environment["cpu"] = CpuName();
  environment["cores"] = std::thread::hardware_concurrency();
  environment["kernel"] = std::string(name.sysname) + " " + name.release;
  const auto mpi = MpiVersion();
  environment["mpi"] = mpi.ok() ? *mpi : "";
  environment["gpus"] = nlohmann::ordered_json::array();
  static constexpr std::array kVariables = {"OMPI_COMM_WORLD_SIZE",
                                            "OMPI_MCA_btl", "OMPI_MCA_pml",
                                            "OMPI_MCA_coll", "OMP_NUM_THREADS"};
  auto& variables = environment["variables"];
  variables = nlohmann::ordered_json::object();
  for (const char* variable : kVariables) {
    if (const char* value = std::getenv(variable)) variables[variable] = value;
  }
  return environment;
}

}  // namespace shardproof
