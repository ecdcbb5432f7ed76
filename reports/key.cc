#include "reports/key.h"

#include <fmt/format.h>

namespace shardproof {

std::string KeyOf(const Record& r) {
  std::string key =
      fmt::format("{} {} {} {}", r.case_name, r.variant, r.backend, r.ranks);
  if (const std::string params = ParamsText(r); !params.empty()) {
    key += ' ';
    key += params;
  }
  if (r.memory != "shared") key += " memory:" + r.memory;
  if (r.time_us.has_value() && r.time_us->cadence != "isolated") {
    key += " cadence:" + r.time_us->cadence;
  }
  if (r.emulated) key += " emulated";
  return key;
}

}  // namespace shardproof
