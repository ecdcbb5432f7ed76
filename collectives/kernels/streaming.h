// In which order to walk through memory, and when to store around the caches.
#ifndef SHARDPROOF_COLLECTIVES_KERNELS_STREAMING_H_
#define SHARDPROOF_COLLECTIVES_KERNELS_STREAMING_H_

#include <cstddef>

namespace shardproof::kernels {

// How a copy or a fold goes through its arrays. The result is the same.
struct Walk {
  // Store around the caches: see ShouldStream.
  bool streaming = false;
  // From the end to the beginning. A cache keeps what was used last, so an array
  // that does not fit is found in part when it is walked through in the other
  // direction than the last time, and not at all in the same one. Streaming
  // walks go forward: nothing of theirs is cached.
  bool backward = false;
};

// Bytes of the last-level cache of this machine, as the operating system
// reports it (32 MiB where it does not), but no more than this machine's cores
// can have of it.
size_t LastLevelCacheBytes();

// Whether an operation whose ranks together touch `bytes` on this node should
// store around the caches. A regular store to a line that is not cached first
// reads it, a third more traffic for a copy; a streaming store evicts lines
// that the next operation would have found. Above the cache size there is
// nothing left to find.
bool ShouldStream(size_t bytes);

}  // namespace shardproof::kernels

#endif  // SHARDPROOF_COLLECTIVES_KERNELS_STREAMING_H_
