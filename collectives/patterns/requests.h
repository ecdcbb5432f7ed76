// A few messages under way, waited for together.
#ifndef SHARDPROOF_COLLECTIVES_PATTERNS_REQUESTS_H_
#define SHARDPROOF_COLLECTIVES_PATTERNS_REQUESTS_H_

#include <array>
#include <cstddef>
#include <span>
#include <utility>

#include "collectives/communicator.h"
#include "reference/status.h"

namespace shardproof {

// Holds up to kMost requests without allocating. The destructor waits for what
// is left, so that an early return after an error leaves no message under way
// in memory that is about to go.
class Requests {
 public:
  static constexpr int kMost = 16;

  explicit Requests(const Communicator& comm) : comm_(comm) {}
  ~Requests() { (void)WaitAll(); }
  Requests(const Requests&) = delete;
  Requests& operator=(const Requests&) = delete;

  // Takes over what Isend or Irecv returned. When full, waits for those before
  // it: only for messages whose order of completion does not matter.
  Status Add(StatusOr<Request> started) {
    if (!started.ok()) return std::move(started).status();
    if (size_ == kMost) {
      // Its own place even if the wait fails: it must be waited for too.
      const Status status = WaitAll();
      requests_[size_++] = *std::move(started);
      return status;
    }
    requests_[size_++] = *std::move(started);
    return OkStatus();
  }
  Status WaitAll() {
    if (size_ == 0) return OkStatus();
    const int size = std::exchange(size_, 0);
    return comm_.WaitAll(std::span(requests_).first(static_cast<size_t>(size)));
  }

 private:
  const Communicator& comm_;
  std::array<Request, kMost> requests_;
  int size_ = 0;
};

}  // namespace shardproof

#endif  // SHARDPROOF_COLLECTIVES_PATTERNS_REQUESTS_H_
