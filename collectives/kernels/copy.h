// Copies between buffers of ranks.
#ifndef SHARDPROOF_COLLECTIVES_KERNELS_COPY_H_
#define SHARDPROOF_COLLECTIVES_KERNELS_COPY_H_

#include <cstddef>
#include <span>

#include "collectives/kernels/streaming.h"

namespace shardproof::kernels {

// Copies `bytes` from `source` to `destination`, which do not overlap (equal
// addresses are allowed: nothing happens).
void Copy(void* destination, const void* source, size_t bytes,
          const Walk& walk = {});

// Copies `bytes` from `source` to every destination, reading the source once. A
// destination may be the source itself.
void CopyToAll(std::span<void* const> destinations, const void* source,
               size_t bytes, const Walk& walk = {});

}  // namespace shardproof::kernels

#endif  // SHARDPROOF_COLLECTIVES_KERNELS_COPY_H_
