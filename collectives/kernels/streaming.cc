#include "collectives/kernels/streaming.h"

#include <unistd.h>

namespace shardproof::kernels {

size_t LastLevelCacheBytes() {
  static const size_t bytes = [] {
    const long reported = sysconf(_SC_LEVEL3_CACHE_SIZE);
    return reported > 0 ? static_cast<size_t>(reported) : size_t{32} << 20;
  }();
  return bytes;
}

bool ShouldStream(size_t bytes) { return bytes > LastLevelCacheBytes(); }

}  // namespace shardproof::kernels
