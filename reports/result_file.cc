#include "reports/result_file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <sstream>
#include <utility>

#include "reports/json_io.h"

namespace shardproof {
namespace {

constexpr int kSchema = 1;
constexpr std::string_view kOpening = "{\"schema\":";
constexpr std::string_view kOpenTail =
    "\n],\"finished\":null,\"complete\":false}\n";

std::string ErrnoText() { return std::strerror(errno); }

// Replacement for text that is not UTF-8: host names and paths may be anything.
std::string Dump(const nlohmann::ordered_json& json) {
  return json.dump(-1, ' ', false,
                   nlohmann::ordered_json::error_handler_t::replace);
}

bool LooksLikeResults(const std::string& path) {
  std::ifstream in(path);
  std::string start(kOpening.size(), '\0');
  in.read(start.data(), static_cast<std::streamsize>(start.size()));
  return in.good() && start == kOpening;
}

}  // namespace

StatusOr<ResultFile> ResultFile::Create(const std::string& path,
                                        const ResultHeader& header) {
  struct stat info = {};
  if (stat(path.c_str(), &info) == 0 && S_ISREG(info.st_mode) &&
      info.st_size > 0) {
    if (!LooksLikeResults(path)) {
      return InvalidArgument(
          "{} is there already and is not a result file: choose another name "
          "with --json",
          path);
    }
    if (std::rename(path.c_str(), (path + ".previous").c_str()) != 0) {
      return Unavailable("cannot move the earlier {} aside: {}", path,
                         ErrnoText());
    }
  }
  const int descriptor =
      open(path.c_str(), O_CREAT | O_WRONLY | O_CLOEXEC, 0644);
  if (descriptor < 0) {
    return Unavailable(
        "cannot write {}: {}: choose a folder that can be written with --json",
        path, ErrnoText());
  }
  ResultFile file(path, descriptor);
  const std::string text = std::string(kOpening) + std::to_string(kSchema) +
                           ",\"command\":" + Dump(header.command) +
                           ",\"started\":" + Dump(header.started) +
                           ",\"environment\":" + Dump(header.environment) +
                           ",\"records\":[";
  SP_RETURN_IF_ERROR(file.WriteAt(0, text + std::string(kOpenTail)));
  file.end_of_records_ = static_cast<int64_t>(text.size());
  return file;
}

ResultFile::ResultFile(ResultFile&& other) noexcept
    : path_(std::move(other.path_)),
      descriptor_(std::exchange(other.descriptor_, -1)),
      end_of_records_(other.end_of_records_),
      records_(other.records_) {}

ResultFile& ResultFile::operator=(ResultFile&& other) noexcept {
  std::swap(path_, other.path_);
  std::swap(descriptor_, other.descriptor_);
  std::swap(end_of_records_, other.end_of_records_);
  std::swap(records_, other.records_);
  return *this;
}

ResultFile::~ResultFile() {
  if (descriptor_ >= 0) close(descriptor_);
}

Status ResultFile::WriteAt(int64_t offset, std::string_view text) {
  size_t done = 0;
  while (done < text.size()) {
    const ssize_t n =
        pwrite(descriptor_, text.data() + done, text.size() - done,
               static_cast<off_t>(offset) + static_cast<off_t>(done));
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) {
      return DataLoss("cannot write {}: {}", path_,
                      n == 0 ? "nothing was taken" : ErrnoText());
    }
    done += static_cast<size_t>(n);
  }
  return Status();
}

Status ResultFile::Append(const Record& record) {
  const std::string text =
      (records_ == 0 ? "\n" : ",\n") + Dump(ToJson(record));
  const Status written =
      WriteAt(end_of_records_, text + std::string(kOpenTail));
  if (!written.ok()) {
    // Put the old tail back over what was begun: its place on the disk exists.
    const auto end = end_of_records_ + static_cast<int64_t>(kOpenTail.size());
    if (WriteAt(end_of_records_, kOpenTail).ok() &&
        ftruncate(descriptor_, static_cast<off_t>(end)) == 0) {
      return written.WithContext("a record is missing");
    }
    return written.WithContext("the file may end in the middle");
  }
  end_of_records_ += static_cast<int64_t>(text.size());
  ++records_;
  return Status();
}

Status ResultFile::Finish(const ResultEnd& end) {
  nlohmann::ordered_json left_out = end.left_out;
  std::string sections;
  for (const auto& [name, value] : end.sections.items()) {
    sections += "," + Dump(name) + ":" + Dump(value);
  }
  const std::string tail =
      "\n],\"left_out\":" + Dump(left_out) + sections +
      ",\"interrupted\":" + (end.interrupted ? "true" : "false") +
      ",\"finished\":" + Dump(end.finished) +
      ",\"complete\":" + (end.interrupted ? "false" : "true") + "}\n";
  SP_RETURN_IF_ERROR(WriteAt(end_of_records_, tail));
  const auto size = end_of_records_ + static_cast<int64_t>(tail.size());
  if (ftruncate(descriptor_, static_cast<off_t>(size)) != 0 &&
      errno != EINVAL) {  // A device has no length.
    return DataLoss("cannot finish {}: {}", path_, ErrnoText());
  }
  const int descriptor = std::exchange(descriptor_, -1);
  if (close(descriptor) != 0) {
    return DataLoss("cannot finish {}: {}", path_, ErrnoText());
  }
  return Status();
}

StatusOr<Results> ReadResults(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  std::stringstream text;
  text << in.rdbuf();
  if (!in.is_open() || in.bad()) {
    return Unavailable("cannot read {}: {}", path, ErrnoText());
  }
  return ParseResults(text.str(), path);
}

StatusOr<Results> ParseResults(std::string_view text, const std::string& name) {
  SP_ASSIGN_OR_RETURN(nlohmann::ordered_json json, ParseJson(text, name));
  if (!json.is_object() || !json.contains("schema") ||
      !json["schema"].is_number_integer() || !json.contains("records") ||
      !json["records"].is_array()) {
    return InvalidArgument(
        "{} is not a result file: \"schema\" or \"records\" is missing", name);
  }
  if (json["schema"].get<int64_t>() != kSchema) {
    return InvalidArgument(
        "{} has schema {}, and this version reads {}: use a newer shardproof",
        name, json["schema"].get<int64_t>(), kSchema);
  }
  Results results;
  for (const auto& entry : json["records"]) {
    auto record = RecordFromJson(entry);
    if (!record.ok()) {
      return record.status().WithContext(
          name + ", record " + std::to_string(results.records.size()));
    }
    results.records.push_back(*std::move(record));
  }
  json.erase("records");
  results.complete = json.contains("complete") &&
                     json["complete"].is_boolean() &&
                     json["complete"].get<bool>();
  results.header = std::move(json);
  return results;
}

}  // namespace shardproof
