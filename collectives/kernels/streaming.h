// In which order to walk through memory, and when to store around the caches.
#ifndef SHARDPROOF_COLLECTIVES_KERNELS_STREAMING_H_
#define SHARDPROOF_COLLECTIVES_KERNELS_STREAMING_H_

#include <cstddef>
#include <string>

namespace shardproof::kernels {

// Whether a long copy around the caches should walk through several pages side
// by side. What processors want differs; two ranks, each on its core:
//
// Intel's prefetch for each page of 4 KiB apart, and from one they fetch too
// little at a time to cover the latency of memory. Copies of 256 MiB on a machine
// with AVX-512: 9.0 GB/s with one page at a time, 10.6 with two, 11.5 with four,
// 11.7 with eight.
//
// On Zen 3 a single way through memory that asks for lines ahead of its loads is
// faster: 9.5 GB/s against 7.6 with four pages at 128 MiB, 9.6 against 8.5 at 32
// MiB and 10.0 against 9.2 at 8 MiB. It can store what it loaded to several
// destinations besides: 10.5 GB/s to two at each of these sizes, where going to
// one after the other 16 KiB at a time takes 9.8. A core stores 10.9 at most.
bool PagesSideBySide();

// How a copy or a fold goes through its arrays. The result is the same.
struct Walk {
  // Store around the caches: see ShouldStream.
  bool streaming = false;
  // From the end to the beginning. A cache keeps what was used last, so an array
  // that does not fit is found in part when it is walked through in the other
  // direction than the last time, and not at all in the same one. Streaming
  // walks go forward: nothing of theirs is cached.
  bool backward = false;
  // Copies that stream.
  bool side_by_side = PagesSideBySide();
};

// Of the last-level caches of all processors that `folder` describes, as the
// kernel does in /sys/devices/system/cpu; 0: of none. These are the caches that
// the processors reach: sysconf(_SC_LEVEL3_CACHE_SIZE) says 256 MiB in a virtual
// machine that has two cores at one of the eight caches of 32 MiB of a Zen 3.
size_t CacheBytesIn(const std::string& folder);

// Of the last-level caches of this machine, as the operating system reports them
// (32 MiB where it does not), but no more than this machine's cores can have of
// them.
size_t LastLevelCacheBytes();

// Whether an operation whose ranks together touch `bytes` on this node should
// store around the caches. A regular store to a line that is not cached first
// reads it, a third more traffic for a copy; a streaming store evicts lines
// that the next operation would have found. Above the cache size there is
// nothing left to find.
bool ShouldStream(size_t bytes);

}  // namespace shardproof::kernels

#endif  // SHARDPROOF_COLLECTIVES_KERNELS_STREAMING_H_
