// Comparisons and calibrations in the history.
#include <regex>
#include <utility>

#include "reports/json_io.h"
#include "reports/store/store.h"

namespace shardproof {
namespace {

using Json = nlohmann::ordered_json;

std::string Dump(const Json& json) {
  return json.dump(-1, ' ', false, Json::error_handler_t::replace);
}

}  // namespace

Status Store::PutComparisons(const std::string& machine,
                             const std::string& measured,
                             const std::vector<Comparison>& comparisons) {
  SP_ASSIGN_OR_RETURN(Transaction transaction, Transaction::Begin(database_));
  SP_ASSIGN_OR_RETURN(
      Statement insert,
      database_.Prepare("INSERT INTO comparisons (measured, machine, key, "
                        "change, comparison) VALUES (?, ?, ?, ?, ?)"));
  for (const Comparison& comparison : comparisons) {
    SP_RETURN_IF_ERROR(insert
                           .Bind(measured, machine, comparison.key,
                                 Name(comparison.change),
                                 Dump(ToJson(comparison)))
                           .Run());
  }
  return transaction.Commit();
}

StatusOr<std::vector<Store::StoredComparison>> Store::Comparisons(
    const std::string& filter, const std::string& machine) {
  std::regex regex;
  try {
    regex = std::regex(filter);
  } catch (const std::regex_error& error) {
    return InvalidArgument("the filter \"{}\" is not a regular expression: {}",
                           filter, error.what());
  }
  SP_ASSIGN_OR_RETURN(
      Statement select,
      database_.Prepare("SELECT machine, measured, key, comparison "
                        "FROM comparisons WHERE (?1 = '' OR machine = ?1) "
                        "ORDER BY measured, id"));
  select.Bind(machine);
  std::vector<StoredComparison> found;
  while (true) {
    SP_ASSIGN_OR_RETURN(const bool row, select.Step());
    if (!row) return found;
    if (!std::regex_search(select.Text(2), regex)) continue;
    SP_ASSIGN_OR_RETURN(const Json json, ParseJson(select.Text(3), path()));
    auto comparison = ComparisonFromJson(json);
    if (!comparison.ok()) return comparison.status().WithContext(path());
    found.push_back({.machine = select.Text(0),
                     .measured = select.Text(1),
                     .comparison = *std::move(comparison)});
  }
}

Status Store::PutCalibration(const Calibration& calibration) {
  SP_ASSIGN_OR_RETURN(Transaction transaction, Transaction::Begin(database_));
  SP_ASSIGN_OR_RETURN(
      Statement insert,
      database_.Prepare(
          "INSERT OR REPLACE INTO calibrations VALUES (?, ?, ?)"));
  SP_RETURN_IF_ERROR(insert
                         .Bind(calibration.machine, calibration.measured,
                               Dump(ToJson(calibration)))
                         .Run());
  return transaction.Commit();
}

StatusOr<std::optional<Calibration>> Store::LatestCalibration(
    const std::string& machine) {
  SP_ASSIGN_OR_RETURN(
      Statement select,
      database_.Prepare("SELECT calibration FROM calibrations "
                        "WHERE machine = ? ORDER BY measured DESC LIMIT 1"));
  SP_ASSIGN_OR_RETURN(const bool row, select.Bind(machine).Step());
  if (!row) return std::optional<Calibration>();
  SP_ASSIGN_OR_RETURN(const Json json, ParseJson(select.Text(0), path()));
  auto calibration = CalibrationFromJson(json);
  if (!calibration.ok()) return calibration.status().WithContext(path());
  return std::optional<Calibration>(*std::move(calibration));
}

}  // namespace shardproof
