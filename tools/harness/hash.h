// A fast 64-bit hash of memory: equal bits on all ranks, and again on the next
// run, are compared by it. Not for adversaries.
#ifndef SHARDPROOF_TOOLS_HARNESS_HASH_H_
#define SHARDPROOF_TOOLS_HARNESS_HASH_H_

#include <cstddef>
#include <cstdint>
#include <string_view>

namespace shardproof {

// Depends on every bit and on its place. About 10 GB/s.
uint64_t HashBytes(const void* data, size_t bytes);

// A seed made of two.
uint64_t CombineHash(uint64_t a, uint64_t b);

inline uint64_t HashText(std::string_view text) {
  return HashBytes(text.data(), text.size());
}

}  // namespace shardproof

#endif  // SHARDPROOF_TOOLS_HARNESS_HASH_H_
