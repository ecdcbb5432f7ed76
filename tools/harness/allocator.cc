#include "tools/harness/allocator.h"

#include <limits>

#ifdef __GLIBC__
#include <malloc.h>
#endif

namespace shardproof {

void KeepFreedMemory() {
#ifdef __GLIBC__
  constexpr int kMost = std::numeric_limits<int>::max();
  // Before 2.35 there was an upper limit to this one.
  constexpr int kOldLimit = 32 << 20;
  if (mallopt(M_MMAP_THRESHOLD, kMost) == 0) {
    mallopt(M_MMAP_THRESHOLD, kOldLimit);
  }
  mallopt(M_TRIM_THRESHOLD, kMost);
#endif
}

}  // namespace shardproof
