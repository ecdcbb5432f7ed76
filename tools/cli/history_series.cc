#include "tools/cli/history_series.h"

#include <cmath>
#include <set>
#include <utility>
#include <vector>

#include "reports/key.h"
#include "reports/statistics/e_divisive.h"
#include "reports/store/store.h"
#include "tools/cli/environment.h"

namespace shardproof {
namespace {

// The change points are the same whenever they are looked for.
constexpr uint64_t kSeed = 1;

}  // namespace

void FindChanges(History& history) {
  history.changes.clear();
  std::vector<size_t> starts = {0};
  for (const History::Epoch& epoch : history.epochs) {
    if (epoch.first > starts.back()) starts.push_back(epoch.first);
  }
  starts.push_back(history.points.size());
  for (size_t e = 0; e + 1 < starts.size(); ++e) {
    std::vector<double> times;
    std::vector<size_t> indices;
    for (size_t i = starts[e]; i < starts[e + 1]; ++i) {
      const double us = history.points[i].median_us;
      if (!(us > 0) || !std::isfinite(us)) continue;
      times.push_back(us);
      indices.push_back(i);
    }
    for (const ChangePoint& change : EDivisive(times, {.seed = kSeed})) {
      history.changes.push_back({.first = indices[change.first],
                                 .effect = change.effect,
                                 .p = change.p});
    }
  }
}

Status AddHistory(const std::string& path, Report& report) {
  const bool named = !path.empty();
  StatusOr<Store> store =
      Store::Open(named ? path : Store::DefaultPath(), StoreMode::kReadOnly);
  if (!store.ok()) return named ? store.status() : OkStatus();
  const std::string machine = MachineId(CollectFingerprint());
  std::set<std::string> keys;
  for (const Launch& launch : report.launches) {
    for (const Record& r : launch.records) {
      if (r.time_us.has_value()) keys.insert(KeyOf(r));
    }
  }
  SP_ASSIGN_OR_RETURN(std::vector<History> histories,
                      store->Histories({.machine = machine}));
  for (History& history : histories) {
    if (!keys.contains(history.key)) continue;
    FindChanges(history);
    report.histories.push_back(std::move(history));
  }
  if (!report.calibration.has_value()) {
    SP_ASSIGN_OR_RETURN(report.calibration, store->LatestCalibration(machine));
  }
  return OkStatus();
}

}  // namespace shardproof
