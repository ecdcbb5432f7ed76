// Which variant `auto` takes, as measured: the table that `shardproof fit
// --tuning FILE` writes and the variable SHARDPROOF_TUNING names. A line is
//
//     all_reduce messages 4 16384 ring
//
// for: on 4 ranks that do not share memory ("shared": that do), from 16384
// bytes on, and up to the next line of the same three, all_reduce takes ring.
// Bytes are args.count * SizeOf(args.dtype) of the primitive. What no line is
// for stays as auto.cc estimates. '#' begins a comment; the first line is
// "# shardproof tuning 1".
//
//     static const Tuned<AllReduceArgs> tuned("all_reduce", kVariants);
//     if (auto* run = tuned.Find(comm, bytes)) return run(comm, args);
//
// The variable is read once, at the first use. All ranks must have the same
// table, since a collective is one algorithm: the command line compares Hash().
#ifndef SHARDPROOF_COLLECTIVES_TUNING_H_
#define SHARDPROOF_COLLECTIVES_TUNING_H_

#include <array>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "collectives/communicator.h"
#include "reference/status.h"

namespace shardproof {

// The primitives whose `auto` asks the table.
inline constexpr std::array<std::string_view, 8> kTunedPrimitives = {
    "all_gather", "all_reduce",     "all_to_all", "broadcast",
    "gather",     "reduce_scatter", "reduce",     "scatter"};

class TuningTable {
 public:
  struct Row {
    std::string primitive = {};
    bool shared = false;  // Ranks that share memory.
    int ranks = 0;
    int64_t from_bytes = 0;
    std::string variant = {};
    friend bool operator==(const Row&, const Row&) = default;
  };

  TuningTable() = default;
  // Sorted, so that the order in which rows are given says nothing.
  explicit TuningTable(std::vector<Row> rows);

  // kInvalidArgument: "FILE, line 3: ...". `name` is for that sentence.
  static StatusOr<TuningTable> Parse(std::string_view text,
                                     std::string_view name);
  // Also kInvalidArgument: a file that cannot be read.
  static StatusOr<TuningTable> Load(const std::string& path);

  // What Parse reads.
  std::string Text() const;
  const std::vector<Row>& rows() const { return rows_; }
  // Of the rows, 0 where there are none.
  uint64_t Hash() const;

 private:
  std::vector<Row> rows_;
};

// What SHARDPROOF_TUNING names: an empty table where it is unset or empty, the
// error of Load where it cannot be read.
const StatusOr<TuningTable>& ActiveTuning();
// Its rows; none after an error, which the command line has reported.
const TuningTable& ActiveTuningOrNone();

// A variant that a table may name.
template <class Args>
struct TunedVariant {
  std::string_view name;
  bool needs_shared_memory = false;
  Status (*run)(const Communicator&, const Args&) = nullptr;
};

// The rows of one primitive, as functions. Rows that name no variant of
// `variants`, or one that needs memory that the ranks do not share, are left
// out.
template <class Args>
class Tuned {
 public:
  using Run = Status (*)(const Communicator&, const Args&);

  Tuned(std::string_view primitive,
        std::span<const TunedVariant<Args>> variants,
        const TuningTable& table = ActiveTuningOrNone()) {
    for (const TuningTable::Row& row : table.rows()) {
      if (row.primitive != primitive) continue;
      for (const TunedVariant<Args>& v : variants) {
        if (v.name != row.variant) continue;
        if (v.needs_shared_memory && !row.shared) continue;
        entries_.push_back({row.shared, row.ranks, row.from_bytes, v.run});
      }
    }
  }

  // Null where the table does not say.
  Run Find(const Communicator& comm, int64_t bytes) const {
    if (entries_.empty()) [[likely]] {
      return nullptr;
    }
    return Find(comm.SharesMemory(), comm.size(), bytes);
  }
  Run Find(bool shared, int ranks, int64_t bytes) const {
    Run found = nullptr;  // Rows are sorted by bytes.
    for (const Entry& e : entries_) {
      if (e.shared == shared && e.ranks == ranks && e.from_bytes <= bytes) {
        found = e.run;
      }
    }
    return found;
  }

 private:
  struct Entry {
    bool shared = false;
    int ranks = 0;
    int64_t from_bytes = 0;
    Run run = nullptr;
  };
  std::vector<Entry> entries_;
};

}  // namespace shardproof

#endif  // SHARDPROOF_COLLECTIVES_TUNING_H_
