#include "reports/store/schema.h"

#include <array>

namespace shardproof {
namespace {

// "Shpf" in ASCII: tells our files from other programs' (SQLite's
// application_id).
constexpr int64_t kApplication = 0x53687066;

// Columns beside the JSON are what queries ask for. Times are ISO 8601 in UTC,
// so that the order of the text is the order of time.
constexpr std::array<const char*, 1> kSteps = {R"(
CREATE TABLE machines (
  id TEXT PRIMARY KEY,            -- MachineId
  fingerprint TEXT NOT NULL       -- JSON, of the first launch
) WITHOUT ROWID;
CREATE TABLE epochs (
  id TEXT PRIMARY KEY,            -- EpochId
  fingerprint TEXT NOT NULL
) WITHOUT ROWID;
CREATE TABLE launches (
  id INTEGER PRIMARY KEY,
  started TEXT NOT NULL,
  finished TEXT NOT NULL DEFAULT '',
  name TEXT NOT NULL DEFAULT '',
  command TEXT NOT NULL,
  host TEXT NOT NULL,
  label TEXT NOT NULL,
  binary TEXT NOT NULL,
  machine TEXT NOT NULL REFERENCES machines(id),
  epoch TEXT NOT NULL REFERENCES epochs(id),
  fingerprint TEXT NOT NULL,
  before TEXT NOT NULL DEFAULT '{}',   -- Conditions, JSON
  after TEXT NOT NULL DEFAULT '{}',
  left_out TEXT NOT NULL DEFAULT '[]',
  complete INTEGER NOT NULL DEFAULT 0,
  interrupted INTEGER NOT NULL DEFAULT 0
);
CREATE INDEX launches_by_time ON launches(machine, started);
CREATE TABLE records (
  id INTEGER PRIMARY KEY,
  launch INTEGER NOT NULL REFERENCES launches(id) ON DELETE CASCADE,
  key TEXT NOT NULL,
  case_name TEXT NOT NULL,
  variant TEXT NOT NULL,
  backend TEXT NOT NULL,
  ranks INTEGER NOT NULL,
  params TEXT NOT NULL,
  verdict TEXT NOT NULL,
  median_us REAL,                 -- NULL where nothing was measured
  worst_ratio REAL,
  record TEXT NOT NULL            -- JSON
);
CREATE INDEX records_by_key ON records(key, launch);
CREATE INDEX records_by_launch ON records(launch);
CREATE TABLE comparisons (
  id INTEGER PRIMARY KEY,
  measured TEXT NOT NULL,
  machine TEXT NOT NULL,
  key TEXT NOT NULL,
  change TEXT NOT NULL,
  comparison TEXT NOT NULL        -- JSON
);
CREATE INDEX comparisons_by_key ON comparisons(key, measured);
CREATE TABLE calibrations (
  machine TEXT NOT NULL,
  measured TEXT NOT NULL,
  calibration TEXT NOT NULL,      -- JSON
  PRIMARY KEY (machine, measured)
) WITHOUT ROWID;
)"};

StatusOr<int64_t> VersionOf(Database& database, int64_t current) {
  SP_ASSIGN_OR_RETURN(const int64_t version,
                      database.IntOf("PRAGMA user_version"));
  SP_ASSIGN_OR_RETURN(const int64_t application,
                      database.IntOf("PRAGMA application_id"));
  SP_ASSIGN_OR_RETURN(const int64_t tables,
                      database.IntOf("SELECT count(*) FROM sqlite_schema"));
  if (application != kApplication && (tables > 0 || version != 0)) {
    return InvalidArgument(
        "{} is a database of another program and not a history of shardproof: "
        "choose another place with SHARDPROOF_HISTORY",
        database.path());
  }
  if (version > current) {
    return InvalidArgument(
        "{} has schema {}, and this version reads up to {}: use a newer "
        "shardproof, or another file with SHARDPROOF_HISTORY",
        database.path(), version, current);
  }
  return version;
}

}  // namespace

std::span<const char* const> SchemaSteps() { return kSteps; }

Status Migrate(Database& database, std::span<const char* const> steps) {
  const auto current = static_cast<int64_t>(steps.size());
  {  // Usually there is nothing to do, and no lock to wait for.
    SP_ASSIGN_OR_RETURN(const int64_t version, VersionOf(database, current));
    if (version == current) return OkStatus();
  }
  SP_ASSIGN_OR_RETURN(Transaction transaction, Transaction::Begin(database));
  // Another process may have been faster.
  SP_ASSIGN_OR_RETURN(int64_t version, VersionOf(database, current));
  for (; version < current; ++version) {
    SP_RETURN_IF_ERROR(database.Execute(steps[static_cast<size_t>(version)]));
  }
  SP_RETURN_IF_ERROR(database.Execute(
      fmt::format("PRAGMA user_version = {}; PRAGMA application_id = {}",
                  version, kApplication)));
  return transaction.Commit();
}

Status CheckVersion(Database& database, std::span<const char* const> steps) {
  const auto current = static_cast<int64_t>(steps.size());
  SP_ASSIGN_OR_RETURN(const int64_t version, VersionOf(database, current));
  if (version == current) return OkStatus();
  return InvalidArgument(
      "{} has schema {}, and this version reads {}: any command that writes, "
      "such as `shardproof run`, brings it up to date",
      database.path(), version, current);
}

}  // namespace shardproof
