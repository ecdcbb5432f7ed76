// A seam between algorithms and the wire: sees, and may change, everything that crosses between ranks.
//
// The harness plants faults through it (a lost tail, a stale buffer, a wrong root, a rank that never arrives) and draws
// traces with it. Without one, the communicator pays one predictable branch per call.
//
// Rejected: a decorating Backend. The fast paths are inlined loads and stores over shared memory; a virtual call around
// each would cost as much as the operation, and would not see the addresses through which direct algorithms work.
#ifndef SHARDPROOF_COLLECTIVES_INTERCEPTOR_H_
#define SHARDPROOF_COLLECTIVES_INTERCEPTOR_H_

#include <cstddef>
#include <span>

#include "collectives/op.h"
#include "reference/status.h"

namespace shardproof {

// A peer's buffers as this rank addresses them. Null where the peer offered none.
struct PeerBuffers {
  const std::byte* send = nullptr;
  std::byte* recv = nullptr;
  size_t send_bytes = 0;
  size_t recv_bytes = 0;
};

// All functions are called on the rank's own thread. The defaults change nothing.
class Interceptor {
 public:
  virtual ~Interceptor() = default;

  // Before an operation. May change op.root, wait, or return an error ("this rank never arrives").
  virtual Status OnBegin(Op& /*op*/) { return Status(); }
  // After the operation, on success. `op` as OnBegin left it.
  virtual void OnEnd(const Op& /*op*/) {}
  // Before the closing rendezvous of a direct operation.
  virtual void OnDepart(const Op& /*op*/, int /*rank*/) {}
  // A direct load of `bytes` at `data`, memory of `peer` (or its eager
  // payload). What is returned is read instead; it must live until the
  // operation ends.
  virtual const std::byte* OnLoad(const Op& /*op*/, int /*rank*/, int /*peer*/,
                                  const std::byte* data, size_t /*bytes*/) {
    return data;
  }
  // A direct store of `bytes` to `data`, memory of `peer`. What is returned is
  // written instead; what was stored may be changed in OnDepart.
  virtual std::byte* OnStore(const Op& /*op*/, int /*rank*/, int /*peer*/,
                             std::byte* data, size_t /*bytes*/) {
    return data;
  }
  // A message is about to leave; `payload` may not be changed here.
  virtual void OnSend(const Op& /*op*/, int /*rank*/, int /*destination*/,
                      std::span<const std::byte> /*payload*/) {}
  // A message has arrived; `payload` may be changed.
  virtual void OnReceive(const Op& /*op*/, int /*rank*/, int /*source*/,
                         std::span<std::byte> /*payload*/) {}
};

}  // namespace shardproof

#endif  // SHARDPROOF_COLLECTIVES_INTERCEPTOR_H_
