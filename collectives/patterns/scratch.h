// Scratch memory of the message algorithms: allocated once per communicator and
// slot, grown when a larger operation comes, so that the steady state allocates
// nothing.
#ifndef SHARDPROOF_COLLECTIVES_PATTERNS_SCRATCH_H_
#define SHARDPROOF_COLLECTIVES_PATTERNS_SCRATCH_H_

#include <cstddef>
#include <cstdint>

#include "collectives/communicator.h"
#include "reference/dtype.h"
#include "reference/status.h"

namespace shardproof {

// One buffer each, so that the parts of an algorithm do not overwrite one
// another.
enum class ScratchSlot {
  kSegments,  // Arriving segments of a ReducingExchange.
  kVector,    // Partial results, blocks on their way.
  kInput,     // This rank's input, scaled or saved from being overwritten.
};

// Room for `count` elements, 64-byte aligned; valid until the slot is asked for
// more, or the communicator goes. kOutOfMemory.
StatusOr<std::byte*> Scratch(const Communicator& comm, ScratchSlot slot,
                             int64_t count, DType dtype);

}  // namespace shardproof

#endif  // SHARDPROOF_COLLECTIVES_PATTERNS_SCRATCH_H_
