#include "reports/report.h"

#include <fmt/format.h>

#include <map>
#include <set>

namespace shardproof {

std::vector<std::string> MachineNames(const std::vector<Launch>& launches) {
  std::map<std::string, std::set<std::string>> machines;  // By host.
  for (const Launch& l : launches) {
    machines[l.fingerprint.host].insert(MachineId(l.fingerprint));
  }
  std::vector<std::string> names;
  for (const Launch& l : launches) {
    const std::string& host = l.fingerprint.host;
    const std::string id = MachineId(l.fingerprint);
    if (host.empty()) {
      names.push_back(id);
    } else if (machines[host].size() > 1) {
      names.push_back(fmt::format("{} ({})", host, id));
    } else {
      names.push_back(host);
    }
  }
  return names;
}

bool OfSeveralMachines(const std::vector<Launch>& launches) {
  std::set<std::string> ids;
  for (const Launch& l : launches) ids.insert(MachineId(l.fingerprint));
  return ids.size() > 1;
}

}  // namespace shardproof
