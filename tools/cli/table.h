// What a person sees of records.
#ifndef SHARDPROOF_TOOLS_CLI_TABLE_H_
#define SHARDPROOF_TOOLS_CLI_TABLE_H_

#include <map>
#include <string>
#include <utility>
#include <vector>

#include "reports/record.h"

namespace shardproof {

// Text columns, as wide as they need to be. Cells starting with a digit, and
// their headers, are set to the right.
class Table {
 public:
  explicit Table(std::vector<std::string> header) { Add(std::move(header)); }
  void Add(std::vector<std::string> row) { rows_.push_back(std::move(row)); }
  size_t size() const { return rows_.size() - 1; }
  std::string Text() const;

 private:
  std::vector<std::vector<std::string>> rows_;
};

// "12.3 us", "1.23 ms"; "64 KiB"; "-" for nothing.
std::string TimeText(double us);
std::string BytesText(double bytes);

// Verdicts of a verification, one line per case and variant.
class VerifyTable {
 public:
  void Add(const Record& record);
  std::string Text() const;

 private:
  struct Line {
    std::map<Verdict, int> verdicts;
    std::map<int, int> ranks;
    double worst_ratio = 0;
    std::string unsupported;  // The first reason.
  };
  std::map<std::pair<std::string, std::string>, Line> lines_;
};

// Measurements: one table per case, one line per record, with the ratio to the
// native library where it was measured at the same parameters.
class BenchTable {
 public:
  void Add(Record record) { records_.push_back(std::move(record)); }
  bool empty() const { return records_.empty(); }
  std::string Text() const;

 private:
  std::vector<Record> records_;
};

// Counts per verdict, reasons of what is unsupported, and every failure with
// its reason and repro line (the first `most` in full).
class Summary {
 public:
  void Add(const Record& record);
  std::string Text(size_t most = 20) const;
  int count(Verdict verdict) const;

 private:
  std::map<Verdict, int> counts_;
  std::map<std::string, int> unsupported_;
  std::vector<Record> failures_;
};

}  // namespace shardproof

#endif  // SHARDPROOF_TOOLS_CLI_TABLE_H_
