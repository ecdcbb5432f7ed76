#include "collectives/backend/node/free_list.h"

#include <algorithm>
#include <iterator>

namespace shardproof {

FreeList::FreeList(size_t bytes) {
  if (bytes > 0) free_.emplace(0, bytes);
}

std::optional<size_t> FreeList::Take(size_t bytes, size_t alignment) {
  for (auto block = free_.begin(); block != free_.end(); ++block) {
    const size_t start = block->first;
    const size_t end = start + block->second;
    const size_t aligned = (start + alignment - 1) & ~(alignment - 1);
    if (aligned > end || end - aligned < bytes) continue;
    if (aligned + bytes < end) {
      free_.emplace(aligned + bytes, end - aligned - bytes);
    }
    if (aligned > start) {
      block->second = aligned - start;
    } else {
      free_.erase(block);
    }
    return aligned;
  }
  return std::nullopt;
}

void FreeList::Return(size_t offset, size_t bytes) {
  auto next = free_.lower_bound(offset);
  if (next != free_.end() && next->first == offset + bytes) {
    bytes += next->second;
    next = free_.erase(next);
  }
  if (next != free_.begin()) {
    const auto previous = std::prev(next);
    if (previous->first + previous->second == offset) {
      previous->second += bytes;
      return;
    }
  }
  free_.emplace_hint(next, offset, bytes);
}

size_t FreeList::LargestFree() const {
  size_t largest = 0;
  for (const auto& [offset, bytes] : free_) largest = std::max(largest, bytes);
  return largest;
}

}  // namespace shardproof
