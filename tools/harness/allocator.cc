#include "tools/harness/allocator.h"

#include <limits>

#ifdef __GLIBC__
#include <malloc.h>
#endif

namespace shardproof {

void KeepFreedMemory() {
#ifdef __GLIBC__
  // Larger blocks are few. (Also the most that glibc before 2.35 accepts.)
  mallopt(M_MMAP_THRESHOLD, 32 << 20);
  mallopt(M_TRIM_THRESHOLD, std::numeric_limits<int>::max());
#endif
}

void GiveBackFreedMemory() {
#ifdef __GLIBC__
  malloc_trim(0);
#endif
}

}  // namespace shardproof
