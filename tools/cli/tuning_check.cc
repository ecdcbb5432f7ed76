#include "tools/cli/tuning_check.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <string>
#include <vector>

#include "tools/harness/registry.h"

namespace shardproof {

Status CheckTuning(const TuningTable& table) {
  for (const TuningTable::Row& row : table.rows()) {
    if (std::ranges::find(kTunedPrimitives, row.primitive) ==
        kTunedPrimitives.end()) {
      return InvalidArgument(
          "SHARDPROOF_TUNING: no primitive \"{}\" reads a table, but {}",
          row.primitive, fmt::join(kTunedPrimitives, ", "));
    }
    const CaseInfo* info = Registry::Get().Find("collectives/" + row.primitive);
    if (info == nullptr) continue;  // A binary without this case.
    std::vector<std::string> names;
    for (const ErasedVariant& v : info->variants) {
      if (!v.native && v.name != "auto") names.push_back(v.name);
    }
    if (std::ranges::find(names, row.variant) == names.end()) {
      return InvalidArgument(
          "SHARDPROOF_TUNING: {} has no variant \"{}\" to choose: it has {}",
          row.primitive, row.variant, fmt::join(names, ", "));
    }
  }
  return OkStatus();
}

Status AgreeOnTuning(World& world, const StatusOr<TuningTable>& mine) {
  Status status = mine.ok() ? CheckTuning(*mine)
                            : mine.status().WithContext("SHARDPROOF_TUNING");
  if (!world.of_processes()) return status;
  const std::string word = status.ok() ? fmt::format("={:016x}", mine->Hash())
                                       : fmt::format("!{}", status.message());
  // Every rank finds the same.
  Status found;
  SP_RETURN_IF_ERROR(
      world.Run(world.max_ranks(), [&](const Communicator& comm) -> Status {
        SP_ASSIGN_OR_RETURN(const std::vector<std::string> all,
                            comm.ExchangeControl(word));
        for (size_t r = 0; r < all.size() && found.ok(); ++r) {
          if (all[r].starts_with('!')) {
            found = InvalidArgument("rank {}: {}", r, all[r].substr(1));
          } else if (all[r] != all[0]) {
            found = InvalidArgument(
                "ranks 0 and {} read different tables from SHARDPROOF_TUNING, "
                "and a collective is one algorithm: give all the same",
                r);
          }
        }
        return OkStatus();
      }));
  return found;
}

}  // namespace shardproof
