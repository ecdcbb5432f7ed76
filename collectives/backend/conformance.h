// What every backend must do, checked through the communicator.
//
// One list serves all backends. A test runs each check on every rank of a world
// (and may run it again on sub-communicators):
//
//     for (const ConformanceCheck& check : CommunicatorConformance()) {
//       Status status = check.run(world);        // on every rank, in this order
//     }
//
// A check that fails on one rank may leave others waiting; whoever runs them
// aborts the world then. The abort checks destroy their world in any case: run
// each in a fresh one.
#ifndef SHARDPROOF_COLLECTIVES_BACKEND_CONFORMANCE_H_
#define SHARDPROOF_COLLECTIVES_BACKEND_CONFORMANCE_H_

#include <span>
#include <string_view>

#include "collectives/communicator.h"
#include "reference/status.h"

namespace shardproof {

struct ConformanceCheck {
  std::string_view name;  // Fit to be part of a test's name: "MessagesInOrder".
  // SPMD. Ok, or a sentence that says what this rank saw and should have seen.
  Status (*run)(const Communicator& comm);
};

// For any number of ranks and any nodes. Leaves the world healthy.
std::span<const ConformanceCheck> CommunicatorConformance();

// Each needs a world of its own, of 2 ranks or more, and leaves it aborted. Ok
// when every wait of this rank ended as it must.
std::span<const ConformanceCheck> AbortConformance();

namespace conformance {

// The parts of the list, one file each.
std::span<const ConformanceCheck> Messages();
std::span<const ConformanceCheck> Meetings();
std::span<const ConformanceCheck> Groups();

// Byte `i` of a payload that differs between (from, to, salt), and is not
// periodic in i.
std::byte Pattern(int from, int to, int salt, size_t i);
void Fill(std::span<std::byte> data, int from, int to, int salt);
// Ok, or where `data` first differs from what Fill writes.
Status Verify(std::span<const std::byte> data, int from, int to, int salt,
              std::string_view what);

}  // namespace conformance
}  // namespace shardproof

#endif  // SHARDPROOF_COLLECTIVES_BACKEND_CONFORMANCE_H_
