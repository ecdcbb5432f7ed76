// Host memory of one process.
#ifndef SHARDPROOF_COLLECTIVES_HOST_MEMORY_H_
#define SHARDPROOF_COLLECTIVES_HOST_MEMORY_H_

#include <cstddef>

#include "collectives/device.h"
#include "reference/status.h"

namespace shardproof {

enum class Pages { kOrdinary, kHuge };

// `bytes` of memory, not cleared, at a multiple of 128 below 2 MiB and of 2 MiB
// from there up. Blocks of 2 MiB and more are touched here, so that page faults
// stay out of what is timed and a full machine is an error now and not a kill
// later. With kHuge the kernel is asked for huge pages, which it may refuse
// silently. kOutOfMemory says how much was asked for and how much there is.
StatusOr<Buffer> AllocateHostMemory(size_t bytes, Pages pages);

// Cleared memory at a multiple of 4096, which takes up none until it is used.
StatusOr<Buffer> AllocateZeroed(size_t bytes);

}  // namespace shardproof

#endif  // SHARDPROOF_COLLECTIVES_HOST_MEMORY_H_
