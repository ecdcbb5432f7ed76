#include "tools/harness/hash.h"

#include <cstring>

namespace shardproof {
namespace {

constexpr uint64_t kMultiplier = 0x9fb21c651e98df25u;  // Odd.
constexpr size_t kLanes = 8;

// Bijective in `state` for a fixed word and in the word for a fixed state: one
// changed bit always changes the result.
inline uint64_t Absorb(uint64_t state, uint64_t word) {
  state = (state ^ word) * kMultiplier;
  return state ^ (state >> 32);
}

}  // namespace

uint64_t HashBytes(const void* data, size_t bytes) {
  const auto* p = static_cast<const unsigned char*>(data);
  uint64_t result = 0x5bd1e995u + bytes;
  // Independent lanes, so that multiplications overlap.
  uint64_t lanes[kLanes];
  for (size_t i = 0; i < kLanes; ++i) lanes[i] = i + 1;
  size_t at = 0;
  for (; at + sizeof(lanes) <= bytes; at += sizeof(lanes)) {
    uint64_t words[kLanes];
    std::memcpy(words, p + at, sizeof(words));
    for (size_t i = 0; i < kLanes; ++i) lanes[i] = Absorb(lanes[i], words[i]);
  }
  for (const uint64_t lane : lanes) result = Absorb(result, lane);
  for (; at < bytes; at += sizeof(uint64_t)) {
    uint64_t word = 0;
    std::memcpy(&word, p + at, bytes - at < 8 ? bytes - at : 8);
    result = Absorb(result, word);
  }
  return result ^ (result >> 29);
}

uint64_t CombineHash(uint64_t a, uint64_t b) {
  return Absorb(Absorb(0x27d4eb2fu, a), b) * kMultiplier;
}

}  // namespace shardproof
