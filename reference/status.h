// Errors as values, the one kind used everywhere in Shardproof.
//
// Contract: a Status is either ok or a (code, message) pair. An ok Status is a
// null pointer, so that returning one costs a register and no allocation:
// collectives of 200 ns return it on every call.
//
//   Status Send(int to) {
//     if (to < 0) return InvalidArgument("rank {} is negative", to);
//     SP_RETURN_IF_ERROR(Connect(to));
//     SP_ASSIGN_OR_RETURN(Buffer buffer, Allocate(4096));
//     ...
//     return OkStatus();
//   }
//
// Rejected: exceptions (a rank that throws leaves its peers waiting; a value
// can be carried to the boundary and agreed upon), and absl::Status (the same
// shape, but a large dependency for 100 lines).

#ifndef SHARDPROOF_REFERENCE_STATUS_H_
#define SHARDPROOF_REFERENCE_STATUS_H_

#include <fmt/format.h>

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>

namespace shardproof {

enum class StatusCode : uint8_t {
  kOk,
  kInvalidArgument,  // the caller asked for something that has no meaning
  kUnsupported,      // it has a meaning, but not here; never counted as a pass
  kOutOfMemory,
  kAborted,      // a peer failed, or the operation was cancelled
  kTimeout,      // the watchdog fired
  kUnavailable,  // a device, library or file is not there
  kDataLoss,     // a file or a buffer is damaged
  kInternal,     // a defect of ours
};

// "ok", "invalid argument", ...
std::string_view Name(StatusCode code);

class [[nodiscard]] Status {
 public:
  Status() = default;
  Status(StatusCode code, std::string message);
  Status(const Status& other);
  Status& operator=(const Status& other);
  Status(Status&&) noexcept = default;
  Status& operator=(Status&&) noexcept = default;
  ~Status() = default;

  bool ok() const { return rep_ == nullptr; }
  StatusCode code() const { return ok() ? StatusCode::kOk : rep_->code; }
  // Empty when ok. Valid as long as this Status.
  std::string_view message() const {
    if (ok()) return {};
    return rep_->message;
  }
  // "ok" or "invalid argument: rank -1 is negative".
  std::string ToString() const;
  // The same error with "context: " before its message; ok stays ok.
  Status WithContext(std::string_view context) const;

 private:
  struct Rep {
    StatusCode code;
    std::string message;
  };
  std::unique_ptr<const Rep> rep_;
};

static_assert(sizeof(Status) == sizeof(void*));

inline Status OkStatus() { return Status(); }

// One helper per code. The format string is checked at compile time.
template <typename... Args>
Status InvalidArgument(fmt::format_string<Args...> format, Args&&... args) {
  return Status(StatusCode::kInvalidArgument,
                fmt::format(format, std::forward<Args>(args)...));
}
template <typename... Args>
Status Unsupported(fmt::format_string<Args...> format, Args&&... args) {
  return Status(StatusCode::kUnsupported,
                fmt::format(format, std::forward<Args>(args)...));
}
template <typename... Args>
Status OutOfMemory(fmt::format_string<Args...> format, Args&&... args) {
  return Status(StatusCode::kOutOfMemory,
                fmt::format(format, std::forward<Args>(args)...));
}
template <typename... Args>
Status Aborted(fmt::format_string<Args...> format, Args&&... args) {
  return Status(StatusCode::kAborted,
                fmt::format(format, std::forward<Args>(args)...));
}
template <typename... Args>
Status Timeout(fmt::format_string<Args...> format, Args&&... args) {
  return Status(StatusCode::kTimeout,
                fmt::format(format, std::forward<Args>(args)...));
}
template <typename... Args>
Status Unavailable(fmt::format_string<Args...> format, Args&&... args) {
  return Status(StatusCode::kUnavailable,
                fmt::format(format, std::forward<Args>(args)...));
}
template <typename... Args>
Status DataLoss(fmt::format_string<Args...> format, Args&&... args) {
  return Status(StatusCode::kDataLoss,
                fmt::format(format, std::forward<Args>(args)...));
}
template <typename... Args>
Status Internal(fmt::format_string<Args...> format, Args&&... args) {
  return Status(StatusCode::kInternal,
                fmt::format(format, std::forward<Args>(args)...));
}

namespace internal {
// Prints the status and aborts: the value of an error was asked for.
[[noreturn]] void DieOnBadValue(const Status& status);
}  // namespace internal

// A T, or the reason why there is none. value(), * and -> of an error print the
// error and abort.
template <typename T>
class [[nodiscard]] StatusOr {
 public:
  // Implicit, both: `return InvalidArgument(..)` and `return value`.
  // NOLINTNEXTLINE(google-explicit-constructor)
  StatusOr(Status status) : status_(std::move(status)) {
    if (status_.ok()) status_ = Internal("an ok Status has no value");
  }
  // clang-format off: version 14 puts the NOLINT on a line of its own.
  template <typename U = T>
  requires(std::is_constructible_v<T, U&&> &&
           !std::is_same_v<std::remove_cvref_t<U>, StatusOr> &&
           !std::is_same_v<std::remove_cvref_t<U>, Status>)
      StatusOr(U&& value)  // NOLINT(google-explicit-constructor)
      : value_(std::forward<U>(value)) {}
  // clang-format on

  bool ok() const { return value_.has_value(); }
  const Status& status() const& { return status_; }
  Status status() && { return std::move(status_); }

  const T& value() const& {
    Check();
    return *value_;
  }
  T& value() & {
    Check();
    return *value_;
  }
  T&& value() && {
    Check();
    return *std::move(value_);
  }
  const T& operator*() const& { return value(); }
  T& operator*() & { return value(); }
  T&& operator*() && { return std::move(*this).value(); }
  const T* operator->() const { return &value(); }
  T* operator->() { return &value(); }

 private:
  void Check() const {
    if (!ok()) internal::DieOnBadValue(status_);
  }

  Status status_;
  std::optional<T> value_;
};

}  // namespace shardproof

#define SP_CONCAT_INNER_(a, b) a##b
#define SP_CONCAT_(a, b) SP_CONCAT_INNER_(a, b)

// Returns from the enclosing function when `expr`, a Status, is an error.
#define SP_RETURN_IF_ERROR(expr)                                      \
  do {                                                                \
    if (::shardproof::Status sp_status_ = (expr); !sp_status_.ok()) { \
      return sp_status_;                                              \
    }                                                                 \
  } while (false)

// SP_ASSIGN_OR_RETURN(auto x, F()): x = *F(), or returns F()'s error. The left
// side must not contain a bare comma.
#define SP_ASSIGN_OR_RETURN(lhs, expr) \
  SP_ASSIGN_OR_RETURN_(SP_CONCAT_(sp_status_or_, __LINE__), lhs, expr)
#define SP_ASSIGN_OR_RETURN_(tmp, lhs, expr)     \
  auto tmp = (expr);                             \
  if (!tmp.ok()) return std::move(tmp).status(); \
  lhs = *std::move(tmp)

#endif  // SHARDPROOF_REFERENCE_STATUS_H_
