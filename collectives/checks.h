// Argument checks of the primitives.
//
// Those over arguments that are equal on all ranks refuse on every rank alike
// and before any communication, so nobody waits for a rank that refused. An
// argument that a rank has to itself (the counts of all_to_all_v, the partners
// of send_recv) cannot be checked so: refusing it aborts the communicator, so
// that the others' waits end with the reason.
#ifndef SHARDPROOF_COLLECTIVES_CHECKS_H_
#define SHARDPROOF_COLLECTIVES_CHECKS_H_

#include <cstdint>
#include <span>
#include <string_view>

#include "collectives/communicator.h"
#include "reference/status.h"

namespace shardproof {

// kInvalidArgument where `count` is negative.
Status CheckCount(int64_t count);

// kInvalidArgument where `root` is not a rank of `comm`.
Status CheckRoot(const Communicator& comm, int root);

// kInvalidArgument unless `counts` has one entry per rank, none negative, and
// `offsets` likewise or is empty.
Status CheckCounts(const Communicator& comm, std::span<const int64_t> counts,
                   std::span<const int64_t> offsets = {});

// As CheckCounts, for counts that differ between ranks.
Status CheckOwnCounts(const Communicator& comm, std::span<const int64_t> counts,
                      std::span<const int64_t> offsets);

// `peer` is a rank of `comm` or -1; `role` names it: "destination".
Status CheckOwnPeer(const Communicator& comm, int peer, std::string_view role);

}  // namespace shardproof

#endif  // SHARDPROOF_COLLECTIVES_CHECKS_H_
