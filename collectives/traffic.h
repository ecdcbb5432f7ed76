// Bytes and messages that one rank put on the wire, and what a variant says it will cost.
#ifndef SHARDPROOF_COLLECTIVES_TRAFFIC_H_
#define SHARDPROOF_COLLECTIVES_TRAFFIC_H_

#include <cstdint>

namespace shardproof {

// Counted where data crosses from one rank to another and nowhere else: a send counts at its sender, a load from or a
// store to a peer's memory counts at the rank that issues it. A rank's traffic with itself counts nothing.
struct Traffic {
  int64_t bytes = 0;
  int64_t messages = 0;

  Traffic& operator+=(const Traffic& other) {
    bytes += other.bytes;
    messages += other.messages;
    return *this;
  }
  friend Traffic operator-(Traffic a, const Traffic& b) {
    a.bytes -= b.bytes;
    a.messages -= b.messages;
    return a;
  }
  friend bool operator==(const Traffic&, const Traffic&) = default;
};

// Where the buffers of an operation lie. Direct variants take what peers cannot
// address (ordinary memory of another process) through staging memory, in
// chunks: the same bytes in more messages (direct/staged.h).
enum class Memory { kShared, kOrdinary };

// The cost of one variant of one case, in the terms of the alpha-beta-gamma model:
//
//     seconds = alpha_count * alpha + beta_bytes * beta + gamma_bytes * gamma      (along the critical path)
//
// and the traffic summed over all ranks, which is an exact integer: the harness counts and compares.
struct Cost {
  double alpha_count = 0;  // Messages one after another on the critical path.
  double beta_bytes = 0;  // Bytes through one rank's link on the critical path.
  double gamma_bytes = 0;  // Bytes reduced by one rank on the critical path.
  Traffic total;           // Over all ranks, exact.

  // One part after the other.
  Cost& operator+=(const Cost& other) {
    alpha_count += other.alpha_count;
    beta_bytes += other.beta_bytes;
    gamma_bytes += other.gamma_bytes;
    total += other.total;
    return *this;
  }
  friend Cost operator+(Cost a, const Cost& b) { return a += b; }
};

}  // namespace shardproof

#endif  // SHARDPROOF_COLLECTIVES_TRAFFIC_H_
