// The result file (schema 1) while it is being written, and read back.
//
// Contract: after Create and after every Append the file on disk is one
// complete JSON value. A record and the file's tail go out in one write over
// the previous tail, so a kill at any moment loses at most the record under
// way; until Finish the tail says "complete": false.
//
//     SP_ASSIGN_OR_RETURN(ResultFile file, ResultFile::Create(path, header));
//     SP_RETURN_IF_ERROR(file.Append(record));
//     SP_RETURN_IF_ERROR(file.Finish({.interrupted = false}));
#ifndef SHARDPROOF_REPORTS_RESULT_FILE_H_
#define SHARDPROOF_REPORTS_RESULT_FILE_H_

#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "reference/status.h"
#include "reports/record.h"

namespace shardproof {

struct ResultHeader {
  std::string command;
  std::string started;  // ISO 8601, UTC.
  nlohmann::ordered_json environment = nlohmann::ordered_json::object();
};

struct ResultEnd {
  std::string finished;  // ISO 8601, UTC.
  bool interrupted = false;
  // Cases or instances that were chosen and did not run, and why.
  std::vector<std::string> left_out = {};
  // More members of the file: "comparisons", "fits", "conditions" and others.
  nlohmann::ordered_json sections = nlohmann::ordered_json::object();
};

class ResultFile {
 public:
  // Opens `path` and writes an empty result. A result file that is there
  // already is kept as `path`.previous; anything else there is not touched:
  // kInvalidArgument. kUnavailable where the folder cannot be written.
  static StatusOr<ResultFile> Create(const std::string& path,
                                     const ResultHeader& header);
  ResultFile(ResultFile&& other) noexcept;
  ResultFile& operator=(ResultFile&& other) noexcept;
  ~ResultFile();

  // kDataLoss when the record could not be written (a full disk); the file
  // then still holds what it held before.
  Status Append(const Record& record);
  Status Finish(const ResultEnd& end);

  const std::string& path() const { return path_; }
  int64_t records() const { return records_; }

 private:
  ResultFile(std::string path, int descriptor)
      : path_(std::move(path)), descriptor_(descriptor) {}
  Status WriteAt(int64_t offset, std::string_view text);

  std::string path_;
  int descriptor_ = -1;
  int64_t end_of_records_ = 0;  // Where the tail begins.
  int64_t records_ = 0;
};

struct Results {
  nlohmann::ordered_json header;  // Everything but the records.
  std::vector<Record> records;
  bool complete = false;
};
// kUnavailable: not readable. kDataLoss: truncated or malformed, with the
// position. kInvalidArgument: not a result file, or of a later schema.
StatusOr<Results> ReadResults(const std::string& path);
// The same of a text; `name` is for messages.
StatusOr<Results> ParseResults(std::string_view text, const std::string& name);

}  // namespace shardproof

#endif  // SHARDPROOF_REPORTS_RESULT_FILE_H_
