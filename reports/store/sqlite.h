// SQLite as values of this project: connections and statements that free
// themselves, and errors that say what a person can do. Internal to the store.
//
//     SP_ASSIGN_OR_RETURN(Database db, Database::Open(path, mode, 10000));
//     SP_ASSIGN_OR_RETURN(Statement s, db.Prepare("SELECT a FROM t WHERE b=?"));
//     s.Bind("x");
//     while (true) {
//       SP_ASSIGN_OR_RETURN(const bool row, s.Step());
//       if (!row) break;
//       Use(s.Text(0));
//     }
//
// Errors, each one sentence with the path and what to do:
//   kUnavailable      locked after the timeout, not readable or not writable
//   kInvalidArgument  not a database, or not one of ours
//   kDataLoss         damaged, or the disk is full
//   kInternal         a statement of ours that SQLite does not take
#ifndef SHARDPROOF_REPORTS_STORE_SQLITE_H_
#define SHARDPROOF_REPORTS_STORE_SQLITE_H_

#include <sqlite3.h>

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>

#include "reference/status.h"

namespace shardproof {

enum class StoreMode { kReadWrite, kReadOnly };

namespace internal {
struct Connection {
  Connection() = default;
  Connection(const Connection&) = delete;
  Connection& operator=(const Connection&) = delete;
  ~Connection() { sqlite3_close_v2(db); }
  // What a result code of SQLite means for `path`.
  Status Error(int code);

  sqlite3* db = nullptr;
  std::string path;
  int timeout_ms = 0;
};
}  // namespace internal

class Statement {
 public:
  // Starts anew with these values in the order of the question marks: numbers,
  // texts, and optionals of them (NULL). Not a number is NULL too.
  template <class... Values>
  Statement& Bind(const Values&... values) {
    Restart();
    int index = 0;
    (BindOne(++index, values), ...);
    return *this;
  }
  // Whether there is a row. After the last one the statement can be bound again.
  StatusOr<bool> Step();
  // To its end, without looking at rows.
  Status Run();

  int64_t Int(int column) const {
    return sqlite3_column_int64(statement_.get(), column);
  }
  // 0 for NULL.
  double Real(int column) const {
    return sqlite3_column_double(statement_.get(), column);
  }
  std::string Text(int column) const;

 private:
  friend class Database;
  struct Finalize {
    void operator()(sqlite3_stmt* s) const { sqlite3_finalize(s); }
  };
  Statement(internal::Connection& connection, sqlite3_stmt* statement)
      : connection_(&connection), statement_(statement) {}
  void Restart();
  void BindOne(int index, int64_t value);
  void BindOne(int index, int value) { BindOne(index, int64_t{value}); }
  void BindOne(int index, bool value) { BindOne(index, int64_t{value}); }
  void BindOne(int index, double value);
  void BindOne(int index, std::string_view value);
  void BindOne(int index, const std::string& value) {
    BindOne(index, std::string_view{value});
  }
  void BindOne(int index, const char* value) {
    BindOne(index, std::string_view{value});
  }
  template <class T>
  void BindOne(int index, const std::optional<T>& value) {
    if (value.has_value()) BindOne(index, *value);
  }
  void Keep(int code) {
    if (bound_ == SQLITE_OK) bound_ = code;
  }

  internal::Connection* connection_;
  std::unique_ptr<sqlite3_stmt, Finalize> statement_;
  int bound_ = SQLITE_OK;
};

class Database {
 public:
  // Waits `timeout_ms` for a database that another process has locked. Makes
  // folders and the file where it may write. A read-only database in a folder
  // that cannot be written is read as it lies there.
  static StatusOr<Database> Open(const std::string& path, StoreMode mode,
                                 int timeout_ms);

  StatusOr<Statement> Prepare(std::string_view sql);
  // All of it; for statements that have no values.
  Status Execute(const std::string& sql);
  // SQLite's own check of the whole file: kDataLoss with what is wrong first.
  Status Check();
  // The first column of the first row, 0 if there is none.
  StatusOr<int64_t> IntOf(std::string_view sql);
  int64_t last_id() const { return sqlite3_last_insert_rowid(connection_->db); }
  const std::string& path() const { return connection_->path; }

 private:
  Database() : connection_(std::make_unique<internal::Connection>()) {}
  Status OpenFile(const std::string& name, int flags);
  Status UseWriteAheadLog();

  std::unique_ptr<internal::Connection> connection_;
};

// Rolled back unless it was committed. Takes the lock for writing at once: a
// transaction that reads first and then writes could not wait for another
// writer, since what it had read would be old.
class Transaction {
 public:
  static StatusOr<Transaction> Begin(Database& database);
  Transaction(Transaction&& other) noexcept
      : database_(std::exchange(other.database_, nullptr)) {}
  Transaction& operator=(Transaction&&) = delete;
  ~Transaction();
  Status Commit();

 private:
  explicit Transaction(Database& database) : database_(&database) {}
  Database* database_;
};

}  // namespace shardproof

#endif  // SHARDPROOF_REPORTS_STORE_SQLITE_H_
