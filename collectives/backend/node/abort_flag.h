// A flag that ends every wait of a world, and why it was raised.
//
// Lives in memory that all ranks of a node address, zero-initialised, so it
// holds no pointers: AbortFlag* flag = new (control) AbortFlag.
#ifndef SHARDPROOF_COLLECTIVES_BACKEND_NODE_ABORT_FLAG_H_
#define SHARDPROOF_COLLECTIVES_BACKEND_NODE_ABORT_FLAG_H_

#include <atomic>
#include <cstdint>
#include <string_view>

#include "reference/status.h"

namespace shardproof {

class alignas(128) AbortFlag {
 public:
  AbortFlag() = default;
  AbortFlag(const AbortFlag&) = delete;
  AbortFlag& operator=(const AbortFlag&) = delete;

  // True from when the reason can be read, so that a wait that this ends says
  // why.
  bool raised() const {
    return state_.load(std::memory_order_acquire) == kRaised;
  }
  // The first call wins; its reason is cut to 500 bytes. From any thread. The
  // flag is up on return, also where another call raised it (unless that one
  // was stopped half way: then after a while).
  void Raise(std::string_view reason);
  // Ok, or kAborted with the reason.
  Status status() const;

 private:
  enum : uint32_t { kDown, kRising, kRaised };
  std::atomic<uint32_t> state_{kDown};
  uint32_t length_ = 0;  // Written by the one thread that moves to kRising.
  char reason_[504] = {};
};

}  // namespace shardproof

#endif  // SHARDPROOF_COLLECTIVES_BACKEND_NODE_ABORT_FLAG_H_
