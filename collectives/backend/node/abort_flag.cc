#include "collectives/backend/node/abort_flag.h"

#include <algorithm>
#include <cstddef>
#include <cstring>

namespace shardproof {

void AbortFlag::Raise(std::string_view reason) {
  uint32_t down = kDown;
  if (!state_.compare_exchange_strong(down, kRising,
                                      std::memory_order_relaxed)) {
    return;
  }
  const size_t length = std::min<size_t>(reason.size(), 500);
  std::memcpy(reason_, reason.data(), length);
  length_ = static_cast<uint32_t>(length);
  state_.store(kRaised, std::memory_order_release);
}

Status AbortFlag::status() const {
  switch (state_.load(std::memory_order_acquire)) {
    case kDown:
      return OkStatus();
    case kRaised:
      return Status(StatusCode::kAborted, std::string(reason_, length_));
    default:  // The other side is still writing the reason.
      return Aborted("the world was aborted");
  }
}

}  // namespace shardproof
