#include "reports/store/store.h"

#include <cstdlib>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <utility>

#include "reports/key.h"
#include "reports/store/schema.h"

namespace shardproof {
namespace {

using Json = nlohmann::ordered_json;

// Names and paths may be anything, and JSON is UTF-8.
std::string Dump(const Json& json) {
  return json.dump(-1, ' ', false, Json::error_handler_t::replace);
}

std::string RecordText(const Record& record) {
  if (!record.time_us.has_value() || record.time_us->rank_samples_us.empty()) {
    return Dump(ToJson(record));
  }
  Record lighter = record;
  lighter.time_us->rank_samples_us.clear();
  return Dump(ToJson(lighter));
}

std::string FromEnvironment(const char* name) {
  const char* value = std::getenv(name);
  return value == nullptr ? "" : value;
}

}  // namespace

std::string Store::DefaultPath() {
  if (std::string path = FromEnvironment("SHARDPROOF_HISTORY"); !path.empty()) {
    return path;
  }
  namespace fs = std::filesystem;
  fs::path state = FromEnvironment("XDG_STATE_HOME");
  if (!state.is_absolute()) {  // As its specification wants.
    const std::string home = FromEnvironment("HOME");
    if (home.empty()) return {};
    state = fs::path(home) / ".local" / "state";
  }
  return (state / "shardproof" / "history.db").string();
}

StatusOr<Store> Store::Open(const std::string& path, StoreMode mode,
                            int timeout_ms) {
  SP_ASSIGN_OR_RETURN(Database database,
                      Database::Open(path, mode, timeout_ms));
  SP_RETURN_IF_ERROR(mode == StoreMode::kReadWrite
                         ? Migrate(database, SchemaSteps())
                         : CheckVersion(database, SchemaSteps()));
  return Store(std::move(database));
}

StatusOr<int64_t> Store::Insert(const Start& start) {
  const Fingerprint& f = start.fingerprint;
  const std::string machine = MachineId(f);
  const std::string epoch = EpochId(f);
  const std::string json = Dump(ToJson(f));
  SP_ASSIGN_OR_RETURN(
      Statement add_machine,
      database_.Prepare("INSERT OR IGNORE INTO machines VALUES (?, ?)"));
  SP_RETURN_IF_ERROR(add_machine.Bind(machine, json).Run());
  SP_ASSIGN_OR_RETURN(
      Statement add_epoch,
      database_.Prepare("INSERT OR IGNORE INTO epochs VALUES (?, ?)"));
  SP_RETURN_IF_ERROR(add_epoch.Bind(epoch, json).Run());
  SP_ASSIGN_OR_RETURN(
      Statement add_launch,
      database_.Prepare(
          "INSERT INTO launches (started, name, command, host, label, binary, "
          "machine, epoch, fingerprint, before) "
          "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"));
  SP_RETURN_IF_ERROR(add_launch
                         .Bind(start.started, start.name, start.command, f.host,
                               f.label, f.binary, machine, epoch, json,
                               Dump(ToJson(start.before)))
                         .Run());
  return database_.last_id();
}

Status Store::InsertRecord(int64_t launch, const std::string& json,
                           const Record& r) {
  if (!insert_record_.has_value()) {
    SP_ASSIGN_OR_RETURN(
        insert_record_,
        database_.Prepare(
            "INSERT INTO records (launch, key, case_name, variant, backend, "
            "ranks, params, verdict, median_us, worst_ratio, record) "
            "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"));
  }
  std::optional<double> median, ratio;
  if (r.time_us.has_value()) median = r.time_us->median;
  if (r.error.has_value()) ratio = r.error->worst_ratio;
  return insert_record_
      ->Bind(launch, KeyOf(r), r.case_name, r.variant, r.backend, r.ranks,
             ParamsText(r), Name(r.verdict), median, ratio, json)
      .Run();
}

Status Store::Update(int64_t launch, const End& end) {
  SP_ASSIGN_OR_RETURN(
      Statement update,
      database_.Prepare("UPDATE launches SET finished = ?, complete = ?, "
                        "interrupted = ?, left_out = ?, after = ? "
                        "WHERE id = ?"));
  return update
      .Bind(end.finished, end.complete, end.interrupted,
            Dump(Json(end.left_out)), Dump(ToJson(end.after)), launch)
      .Run();
}

StatusOr<int64_t> Store::BeginLaunch(const Start& start) {
  SP_ASSIGN_OR_RETURN(Transaction transaction, Transaction::Begin(database_));
  SP_ASSIGN_OR_RETURN(const int64_t id, Insert(start));
  SP_RETURN_IF_ERROR(transaction.Commit());
  return id;
}

Status Store::Add(int64_t launch, const Record& record) {
  SP_ASSIGN_OR_RETURN(Transaction transaction, Transaction::Begin(database_));
  SP_RETURN_IF_ERROR(InsertRecord(launch, RecordText(record), record));
  return transaction.Commit();
}

Status Store::EndLaunch(int64_t launch, const End& end) {
  SP_ASSIGN_OR_RETURN(Transaction transaction, Transaction::Begin(database_));
  SP_RETURN_IF_ERROR(Update(launch, end));
  return transaction.Commit();
}

StatusOr<std::vector<std::string>> Store::RecordTexts(int64_t launch) {
  SP_ASSIGN_OR_RETURN(
      Statement select,
      database_.Prepare(
          "SELECT record FROM records WHERE launch = ? ORDER BY id"));
  select.Bind(launch);
  std::vector<std::string> texts;
  while (true) {
    SP_ASSIGN_OR_RETURN(const bool row, select.Step());
    if (!row) return texts;
    texts.push_back(select.Text(0));
  }
}

StatusOr<std::optional<Store::Imported>> Store::Complete(
    const Launch& launch, const std::vector<std::string>& records) {
  SP_ASSIGN_OR_RETURN(
      Statement candidates,
      database_.Prepare(
          "SELECT id, complete FROM launches WHERE started = ? AND "
          "command = ? AND host = ? AND binary = ? ORDER BY id"));
  candidates.Bind(launch.started, launch.command, launch.fingerprint.host,
                  launch.fingerprint.binary);
  while (true) {
    SP_ASSIGN_OR_RETURN(const bool row, candidates.Step());
    if (!row) return std::optional<Imported>();
    Imported same{.launch = candidates.Int(0)};
    const bool complete = candidates.Int(1) != 0;
    SP_ASSIGN_OR_RETURN(const std::vector<std::string> stored,
                        RecordTexts(same.launch));
    const size_t common = std::min(stored.size(), records.size());
    if (!std::equal(stored.begin(),
                    stored.begin() + static_cast<int64_t>(common),
                    records.begin())) {
      continue;
    }
    for (size_t i = common; i < records.size(); ++i) {
      SP_RETURN_IF_ERROR(
          InsertRecord(same.launch, records[i], launch.records[i]));
      ++same.records;
    }
    if (!complete && records.size() >= stored.size()) {
      SP_RETURN_IF_ERROR(Update(same.launch, {.finished = launch.finished,
                                              .complete = launch.complete,
                                              .interrupted = launch.interrupted,
                                              .left_out = launch.left_out,
                                              .after = launch.after}));
    }
    return std::optional<Imported>(same);
  }
}

StatusOr<Store::Imported> Store::Import(const Launch& launch) {
  std::vector<std::string> records;
  records.reserve(launch.records.size());
  for (const Record& record : launch.records) {
    records.push_back(RecordText(record));
  }
  SP_ASSIGN_OR_RETURN(Transaction transaction, Transaction::Begin(database_));
  SP_ASSIGN_OR_RETURN(std::optional<Imported> done, Complete(launch, records));
  if (!done.has_value()) {
    done = Imported{};
    SP_ASSIGN_OR_RETURN(done->launch, Insert({.fingerprint = launch.fingerprint,
                                              .command = launch.command,
                                              .started = launch.started,
                                              .name = launch.name,
                                              .before = launch.before}));
    for (size_t i = 0; i < records.size(); ++i) {
      SP_RETURN_IF_ERROR(
          InsertRecord(done->launch, records[i], launch.records[i]));
    }
    done->records = static_cast<int>(records.size());
    SP_RETURN_IF_ERROR(Update(done->launch, {.finished = launch.finished,
                                             .complete = launch.complete,
                                             .interrupted = launch.interrupted,
                                             .left_out = launch.left_out,
                                             .after = launch.after}));
  }
  SP_RETURN_IF_ERROR(transaction.Commit());
  return *done;
}

StatusOr<int64_t> Store::Prune(const std::string& before) {
  SP_ASSIGN_OR_RETURN(Transaction transaction, Transaction::Begin(database_));
  SP_ASSIGN_OR_RETURN(
      Statement count,
      database_.Prepare("SELECT count(*) FROM launches WHERE started < ?"));
  SP_ASSIGN_OR_RETURN(const bool row, count.Bind(before).Step());
  const int64_t launches = row ? count.Int(0) : 0;
  SP_ASSIGN_OR_RETURN(
      Statement remove_launches,
      database_.Prepare("DELETE FROM launches WHERE started < ?"));
  SP_RETURN_IF_ERROR(remove_launches.Bind(before).Run());
  SP_ASSIGN_OR_RETURN(
      Statement remove_comparisons,
      database_.Prepare("DELETE FROM comparisons WHERE measured < ?"));
  SP_RETURN_IF_ERROR(remove_comparisons.Bind(before).Run());
  SP_RETURN_IF_ERROR(transaction.Commit());
  return launches;
}

}  // namespace shardproof
