#include "collectives/backend/node/abort_flag.h"

#include <sched.h>

#include <algorithm>
#include <cstddef>
#include <cstring>

namespace shardproof {

void AbortFlag::Raise(std::string_view reason) {
  uint32_t down = kDown;
  if (!state_.compare_exchange_strong(down, kRising,
                                      std::memory_order_relaxed)) {
    // The winner is a copy of 500 bytes away.
    for (int turn = 0; turn < 1000 && !raised(); ++turn) sched_yield();
    return;
  }
  const size_t length = std::min<size_t>(reason.size(), 500);
  std::memcpy(reason_, reason.data(), length);
  length_ = static_cast<uint32_t>(length);
  state_.store(kRaised, std::memory_order_release);
}

Status AbortFlag::status() const {
  if (!raised()) return OkStatus();
  return Status(StatusCode::kAborted, std::string(reason_, length_));
}

}  // namespace shardproof
