#include "reference/status.h"

namespace shardproof {

std::string_view Name(StatusCode code) {
  switch (code) {
    case StatusCode::kOk:
      return "ok";
    case StatusCode::kInvalidArgument:
      return "invalid argument";
    case StatusCode::kUnsupported:
      return "unsupported";
    case StatusCode::kOutOfMemory:
      return "out of memory";
    case StatusCode::kAborted:
      return "aborted";
    case StatusCode::kTimeout:
      return "timeout";
    case StatusCode::kUnavailable:
      return "unavailable";
    case StatusCode::kDataLoss:
      return "data loss";
    case StatusCode::kInternal:
      return "internal error";
  }
  return "unknown";
}

Status::Status(StatusCode code, std::string message) {
  if (code != StatusCode::kOk) {
    rep_ = std::make_unique<const Rep>(Rep{code, std::move(message)});
  }
}

Status::Status(const Status& other)
    : rep_(other.ok() ? nullptr : std::make_unique<const Rep>(*other.rep_)) {}

Status& Status::operator=(const Status& other) {
  if (this != &other) *this = Status(other);
  return *this;
}

std::string Status::ToString() const {
  if (ok()) return "ok";
  return fmt::format("{}: {}", Name(code()), message());
}

Status Status::WithContext(std::string_view context) const {
  if (ok()) return Status();
  return Status(code(), fmt::format("{}: {}", context, message()));
}

namespace internal {

void DieOnBadValue(const Status& status) {
  std::fputs(
      fmt::format("value() of an error: {}\n", status.ToString()).c_str(),
      stderr);
  std::abort();
}

}  // namespace internal
}  // namespace shardproof
