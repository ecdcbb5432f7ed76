#include "reports/store/sqlite.h"

#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cmath>
#include <cstring>
#include <filesystem>
#include <system_error>
#include <thread>

namespace shardproof {
namespace {

namespace fs = std::filesystem;

constexpr const char* kElsewhere =
    "choose another place with SHARDPROOF_HISTORY";

// The first complaint of SQLite's own check, or empty.
std::string FirstDamage(sqlite3* db) {
  sqlite3_stmt* check = nullptr;
  std::string text = "it cannot be checked";
  if (sqlite3_prepare_v2(db, "PRAGMA quick_check(1)", -1, &check, nullptr) ==
          SQLITE_OK &&
      sqlite3_step(check) == SQLITE_ROW) {
    const auto* line = sqlite3_column_text(check, 0);
    // NOLINTNEXTLINE(cppcoreguidelines-pro-type-reinterpret-cast)
    if (line != nullptr) text = reinterpret_cast<const char*>(line);
  }
  sqlite3_finalize(check);
  std::replace(text.begin(), text.end(), '\n', ' ');
  return text == "ok" ? "" : text;
}

Status Damaged(const std::string& path, const std::string& damage) {
  return DataLoss(
      "{} is damaged ({}): save what can be read with `sqlite3 {} .recover`, "
      "then move it away",
      path, damage, path);
}

// A path as the URI that asks SQLite to read the file and nothing beside it.
std::string ImmutableUri(const std::string& path) {
  std::string uri = "file:";
  for (const char c : fs::absolute(path).string()) {
    if (c == '%' || c == '?' || c == '#') {
      uri += fmt::format("%{:02x}", static_cast<unsigned char>(c));
    } else {
      uri += c;
    }
  }
  return uri + "?immutable=1";
}

}  // namespace

Status internal::Connection::Error(int code) {
  const int primary = code & 0xff;
  const std::string text =
      db != nullptr ? sqlite3_errmsg(db) : sqlite3_errstr(code);
  switch (primary) {
    case SQLITE_BUSY:
    case SQLITE_LOCKED:
      return Unavailable(
          "{} is locked by another process for more than {} s: wait for it, "
          "or {}",
          path, timeout_ms / 1000.0, kElsewhere);
    case SQLITE_NOTADB:
      return InvalidArgument("{} is not a history of shardproof: {}", path,
                             kElsewhere);
    case SQLITE_CORRUPT: {
      const std::string damage = FirstDamage(db);
      return Damaged(path, damage.empty() ? text : damage);
    }
    case SQLITE_FULL:
      return DataLoss("cannot write {}: the disk is full: make room, or {}",
                      path, kElsewhere);
    case SQLITE_READONLY:
    case SQLITE_PERM:
      return Unavailable(
          "cannot write {}: the file or its folder is read-only: {}", path,
          kElsewhere);
    case SQLITE_CANTOPEN:
      return Unavailable(
          "cannot open {}: {}: {}", path,
          std::strerror(db != nullptr ? sqlite3_system_errno(db) : ENOMEM),
          kElsewhere);
    case SQLITE_IOERR: {
      const int error = db != nullptr ? sqlite3_system_errno(db) : 0;
      return DataLoss("cannot read or write {}: {}: {}", path,
                      error != 0 ? std::strerror(error) : text, kElsewhere);
    }
    case SQLITE_NOMEM:
      return OutOfMemory("no memory to read {}", path);
    default:
      return Internal("{}: {}", path, text);
  }
}

void Statement::Restart() {
  sqlite3_reset(statement_.get());
  sqlite3_clear_bindings(statement_.get());
  bound_ = SQLITE_OK;
}

void Statement::BindOne(int index, int64_t value) {
  Keep(sqlite3_bind_int64(statement_.get(), index, value));
}
void Statement::BindOne(int index, double value) {
  if (std::isnan(value)) return;
  Keep(sqlite3_bind_double(statement_.get(), index, value));
}
void Statement::BindOne(int index, std::string_view value) {
  Keep(sqlite3_bind_text(statement_.get(), index,
                         value.empty() ? "" : value.data(),
                         static_cast<int>(value.size()), SQLITE_TRANSIENT));
}

StatusOr<bool> Statement::Step() {
  if (bound_ != SQLITE_OK) return connection_->Error(bound_);
  const int code = sqlite3_step(statement_.get());
  if (code == SQLITE_ROW) return true;
  if (code == SQLITE_DONE) {
    sqlite3_reset(statement_.get());
    return false;
  }
  // The message belongs to the step, and a reset may change it.
  Status error = connection_->Error(code);
  sqlite3_reset(statement_.get());
  return error;
}

Status Statement::Run() {
  while (true) {
    SP_ASSIGN_OR_RETURN(const bool row, Step());
    if (!row) return OkStatus();
  }
}

std::string Statement::Text(int column) const {
  const auto* text = sqlite3_column_text(statement_.get(), column);
  if (text == nullptr) return {};
  // NOLINTNEXTLINE(cppcoreguidelines-pro-type-reinterpret-cast)
  return {reinterpret_cast<const char*>(text),
          static_cast<size_t>(sqlite3_column_bytes(statement_.get(), column))};
}

Status Database::OpenFile(const std::string& name, int flags) {
  internal::Connection& c = *connection_;
  sqlite3_close_v2(std::exchange(c.db, nullptr));
  int code = sqlite3_open_v2(name.c_str(), &c.db, flags, nullptr);
  if (code != SQLITE_OK) return c.Error(code);
  sqlite3_extended_result_codes(c.db, 1);
  sqlite3_busy_timeout(c.db, c.timeout_ms);
  // SQLite opens lazily: only this reads the file.
  char* message = nullptr;
  code = sqlite3_exec(c.db, "SELECT count(*) FROM sqlite_schema", nullptr,
                      nullptr, &message);
  sqlite3_free(message);
  return code == SQLITE_OK ? OkStatus() : c.Error(code);
}

// The change to WAL needs the file alone for a moment and does not wait for it
// by itself, so two processes that create the file together are made to.
Status Database::UseWriteAheadLog() {
  const auto end = std::chrono::steady_clock::now() +
                   std::chrono::milliseconds(connection_->timeout_ms);
  while (true) {
    const int code = sqlite3_exec(connection_->db, "PRAGMA journal_mode = WAL",
                                  nullptr, nullptr, nullptr);
    if (code == SQLITE_OK) break;
    if ((code & 0xff) != SQLITE_BUSY ||
        std::chrono::steady_clock::now() >= end) {
      return connection_->Error(code);
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  }
  // NORMAL: a transaction that was acknowledged is in the kernel's cache, so
  // that it outlives a kill -9 of this process; a power failure may take the
  // last ones, and never damages the file. FULL would wait for the disk after
  // each record, in the middle of measurements.
  return Execute("PRAGMA synchronous = NORMAL; PRAGMA foreign_keys = ON");
}

StatusOr<Database> Database::Open(const std::string& path, StoreMode mode,
                                  int timeout_ms) {
  if (path.empty()) {
    return InvalidArgument(
        "there is no place for the history, since HOME is not set: {}",
        kElsewhere);
  }
  Database database;
  database.connection_->path = path;
  database.connection_->timeout_ms = timeout_ms;
  std::error_code error;
  if (fs::is_directory(path, error)) {
    return InvalidArgument("{} is a folder and not a history: {}", path,
                           kElsewhere);
  }
  if (mode == StoreMode::kReadOnly) {
    if (!fs::exists(path, error)) {
      return Unavailable(
          "there is no history at {}: `shardproof run` makes one, or {}", path,
          kElsewhere);
    }
    Status opened = database.OpenFile(path, SQLITE_OPEN_READONLY);
    // A reader of a WAL needs a file beside it, which it cannot make here.
    if (opened.code() == StatusCode::kUnavailable &&
        access(path.c_str(), R_OK) == 0 && !fs::exists(path + "-wal", error)) {
      opened = database.OpenFile(ImmutableUri(path),
                                 SQLITE_OPEN_READONLY | SQLITE_OPEN_URI);
    }
    SP_RETURN_IF_ERROR(opened);
    return database;
  }
  const fs::path folder = fs::absolute(path, error).parent_path();
  fs::create_directories(folder, error);
  if (error) {
    return Unavailable("cannot make the folder {}: {}: {}", folder.string(),
                       error.message(), kElsewhere);
  }
  SP_RETURN_IF_ERROR(
      database.OpenFile(path, SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE));
  if (sqlite3_db_readonly(database.connection_->db, "main") == 1) {
    return database.connection_->Error(SQLITE_READONLY);
  }
  SP_RETURN_IF_ERROR(database.UseWriteAheadLog());
  return database;
}

StatusOr<Statement> Database::Prepare(std::string_view sql) {
  sqlite3_stmt* statement = nullptr;
  const int code =
      sqlite3_prepare_v2(connection_->db, sql.data(),
                         static_cast<int>(sql.size()), &statement, nullptr);
  if (code != SQLITE_OK) return connection_->Error(code);
  return Statement(*connection_, statement);
}

Status Database::Execute(const std::string& sql) {
  const int code =
      sqlite3_exec(connection_->db, sql.c_str(), nullptr, nullptr, nullptr);
  return code == SQLITE_OK ? OkStatus() : connection_->Error(code);
}

StatusOr<int64_t> Database::IntOf(std::string_view sql) {
  SP_ASSIGN_OR_RETURN(Statement statement, Prepare(sql));
  SP_ASSIGN_OR_RETURN(const bool row, statement.Step());
  return row ? statement.Int(0) : 0;
}

Status Database::Check() {
  const std::string damage = FirstDamage(connection_->db);
  return damage.empty() ? OkStatus() : Damaged(path(), damage);
}

StatusOr<Transaction> Transaction::Begin(Database& database) {
  SP_RETURN_IF_ERROR(database.Execute("BEGIN IMMEDIATE"));
  return Transaction(database);
}

Status Transaction::Commit() {
  SP_RETURN_IF_ERROR(database_->Execute("COMMIT"));
  database_ = nullptr;
  return OkStatus();
}

Transaction::~Transaction() {
  // A full disk may have rolled it back already; then this has nothing to do.
  if (database_ != nullptr) static_cast<void>(database_->Execute("ROLLBACK"));
}

}  // namespace shardproof
