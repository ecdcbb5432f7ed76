// The history: every launch of every machine in one SQLite file.
//
//     SP_ASSIGN_OR_RETURN(Store store, Store::Open(Store::DefaultPath()));
//     SP_ASSIGN_OR_RETURN(const int64_t id, store.BeginLaunch(start));
//     SP_RETURN_IF_ERROR(store.Add(id, record));         // After each case.
//     SP_RETURN_IF_ERROR(store.EndLaunch(id, {.finished = now, ...}));
//     ...
//     SP_ASSIGN_OR_RETURN(auto histories, store.Histories({.filter = "ring"}));
//
// Contract: what Add has acknowledged is read by everyone from then on, and
// outlives a kill -9 of any writer. Any number of processes may write; each
// waits for the others. A Store belongs to one thread. Not for a file on a
// network: the write-ahead log needs memory that its users share.
//
// A filter is a regular expression (ECMAScript) that is searched for in the
// key (key.h); the empty one is every key. Times are ISO 8601 in UTC.
//
// Errors are one sentence each, with the path and what to do: kUnavailable
// (locked for longer than the timeout; not readable or not writable; not there,
// when it is only to be read), kInvalidArgument (no history of shardproof; of a
// later version; a filter that is none), kDataLoss (damaged; the disk is full).
#ifndef SHARDPROOF_REPORTS_STORE_STORE_H_
#define SHARDPROOF_REPORTS_STORE_STORE_H_

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "reference/status.h"
#include "reports/calibration.h"
#include "reports/comparison.h"
#include "reports/fingerprint.h"
#include "reports/record.h"
#include "reports/report.h"
#include "reports/store/sqlite.h"

namespace shardproof {

class Store {
 public:
  static constexpr int kTimeoutMs = 20000;

  // $SHARDPROOF_HISTORY, else $XDG_STATE_HOME/shardproof/history.db, else
  // $HOME/.local/state/shardproof/history.db; empty where there is no HOME,
  // which Open refuses with a sentence.
  static std::string DefaultPath();

  // kReadWrite makes the folders and the file.
  static StatusOr<Store> Open(const std::string& path,
                              StoreMode mode = StoreMode::kReadWrite,
                              int timeout_ms = kTimeoutMs);

  struct Start {
    Fingerprint fingerprint = {};
    std::string command = {}, started = {};
    std::string name = {};  // The result file, for people.
    Conditions before = {};
  };
  struct End {
    std::string finished = {};
    bool complete = false, interrupted = false;
    std::vector<std::string> left_out = {};
    Conditions after = {};
  };
  // A launch that is never ended stays, as incomplete.
  StatusOr<int64_t> BeginLaunch(const Start& start);
  // In a transaction of its own. The samples of single ranks are left out: they
  // are most of a record, and for the result file.
  Status Add(int64_t launch, const Record& record);
  Status EndLaunch(int64_t launch, const End& end);

  struct Imported {
    int64_t launch = 0;
    int records = 0;  // That were not there yet.
  };
  // All of a result file, or nothing. A launch that is there already is not
  // doubled: one with the same start, command, host and binary, of whose
  // records one list begins with the other. What it lacks is added, so a file
  // may be imported again after it has grown, and after BeginLaunch and Add.
  StatusOr<Imported> Import(const Launch& launch);

  // Every key that matches, sorted.
  StatusOr<std::vector<std::string>> Keys(const std::string& filter = {});

  struct HistoryQuery {
    std::string filter = {};
    std::string machine = {};  // MachineId; empty: every machine by itself.
    std::string since = {};    // Launches that started then or later.
  };
  // One for each key and machine, sorted by key. Points in the order of time,
  // with `epoch` the EpochId; median_us is 0 where nothing was measured. An
  // entry of `epochs` for each point whose epoch is not that of the point
  // before it. `changes` is left empty.
  StatusOr<std::vector<History>> Histories(const HistoryQuery& query);

  struct LaunchQuery {
    std::string filter = {};         // Of the records; those that do not match
                                     // are left out, and so are empty launches.
    std::string machine = {};        // MachineId; empty: any.
    std::string epoch = {};          // EpochId; empty: any.
    std::string label = {};          // Empty: any.
    std::optional<int64_t> id = {};  // This one only.
    int64_t before_id = 0;           // Launches stored before this one; 0: all.
    bool complete_only = true;
    int last = 5;  // At most so many, the latest; 0: all.
  };
  // In the order of time. What the gate takes as its baseline.
  StatusOr<std::vector<Launch>> Launches(const LaunchQuery& query);

  // Two medians of one key by one binary on one machine in one epoch: the same
  // against the same, for nothing. Adjacent launches are paired, and each is in
  // one pair only, so that pairs are independent.
  struct SamePair {
    std::string key = {}, binary = {};
    int64_t first_launch = 0, second_launch = 0;
    double first_us = 0, second_us = 0;
  };
  // The latest launches first; at most `most` pairs of launches.
  StatusOr<std::vector<SamePair>> LaunchesOfSameBinary(
      const std::string& machine, int most = 50);

  Status PutComparisons(const std::string& machine, const std::string& measured,
                        const std::vector<Comparison>& comparisons);
  struct StoredComparison {
    std::string machine = {}, measured = {};
    Comparison comparison = {};
  };
  // In the order of time; of every machine where it is empty.
  StatusOr<std::vector<StoredComparison>> Comparisons(
      const std::string& filter = {}, const std::string& machine = {});

  // Replaces one of the same machine and time.
  Status PutCalibration(const Calibration& calibration);
  StatusOr<std::optional<Calibration>> LatestCalibration(
      const std::string& machine);

  // Forgets launches (with their records) and comparisons that are older;
  // gives the number of launches.
  StatusOr<int64_t> Prune(const std::string& before);
  // SQLite's own check of the whole file: kDataLoss with what is wrong.
  Status Check() { return database_.Check(); }

  const std::string& path() const { return database_.path(); }

 private:
  explicit Store(Database database) : database_(std::move(database)) {}
  StatusOr<int64_t> Insert(const Start& start);
  Status InsertRecord(int64_t launch, const std::string& json,
                      const Record& record);
  Status Update(int64_t launch, const End& end);
  StatusOr<std::optional<Imported>> Complete(
      const Launch& launch, const std::vector<std::string>& records);
  StatusOr<std::vector<std::string>> RecordTexts(int64_t launch);
  // Of the launch; only those that match, all where `filter` is empty.
  StatusOr<std::vector<Record>> Records(int64_t launch,
                                        const std::string& filter);

  Database database_;
  std::optional<Statement> insert_record_ = {};
};

}  // namespace shardproof

#endif  // SHARDPROOF_REPORTS_STORE_STORE_H_
