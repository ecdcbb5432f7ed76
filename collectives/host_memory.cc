#include "collectives/host_memory.h"

#include <sys/mman.h>

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <mutex>

#include "collectives/backend/node/available_memory.h"

namespace shardproof {
namespace {

constexpr size_t kHugePage = size_t{2} << 20;
constexpr size_t kSmallAlignment = 128;  // Two lines: the prefetcher's pair.

size_t RoundUp(size_t bytes, size_t unit) {
  return (bytes + unit - 1) / unit * unit;
}

Status Refuse(size_t bytes, size_t available) {
  return OutOfMemory("{} of memory were asked for, and {} are available",
                     FormatBytes(bytes), FormatBytes(available));
}

// Makes the kernel back [data, data + bytes) with memory.
void Touch(std::byte* data, size_t bytes) {
#ifdef MADV_POPULATE_WRITE
  if (madvise(data, bytes, MADV_POPULATE_WRITE) == 0) return;
#endif
  for (size_t at = 0; at < bytes; at += 4096) {
    *reinterpret_cast<volatile std::byte*>(data + at) = std::byte{0};
  }
}

// An anonymous mapping, aligned to 2 MiB. Null when there is no address space.
std::shared_ptr<void> MapAligned(size_t bytes) {
  const size_t room = bytes + kHugePage;
  void* range = mmap(nullptr, room, PROT_READ | PROT_WRITE,
                     MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (range == MAP_FAILED) return nullptr;
  auto* const start = static_cast<std::byte*>(range);
  const size_t skip = RoundUp(reinterpret_cast<uintptr_t>(range), kHugePage) -
                      reinterpret_cast<uintptr_t>(range);
  if (skip > 0) munmap(start, skip);
  if (skip < kHugePage) munmap(start + skip + bytes, kHugePage - skip);
  return std::shared_ptr<void>(start + skip,
                               [bytes](void* p) { munmap(p, bytes); });
}

StatusOr<Buffer> AllocateLarge(size_t bytes, Pages pages) {
  // One at a time: what another thread was granted and has not touched yet
  // would still look available.
  static std::mutex mutex;
  const std::lock_guard<std::mutex> lock(mutex);
  const size_t available = AvailableMemory();
  // The kernel's estimate is no promise: leave it a sixteenth.
  if (bytes > available - available / 16) return Refuse(bytes, available);
  const size_t mapped = RoundUp(bytes, kHugePage);
  std::shared_ptr<void> owner = MapAligned(mapped);
  if (owner == nullptr) return Refuse(bytes, available);
  auto* const data = static_cast<std::byte*>(owner.get());
  madvise(data, mapped,
          pages == Pages::kHuge ? MADV_HUGEPAGE : MADV_NOHUGEPAGE);
  Touch(data, bytes);
  return Buffer(std::move(owner), data, bytes);
}

}  // namespace

StatusOr<Buffer> AllocateHostMemory(size_t bytes, Pages pages) {
  if (bytes >= kHugePage) return AllocateLarge(bytes, pages);
  // Empty buffers have an address too, so that null means "none offered".
  const size_t rounded = RoundUp(std::max<size_t>(bytes, 1), kSmallAlignment);
  std::shared_ptr<void> owner(std::aligned_alloc(kSmallAlignment, rounded),
                              [](void* p) { std::free(p); });
  if (owner == nullptr) return Refuse(bytes, AvailableMemory());
  auto* const data = static_cast<std::byte*>(owner.get());
  return Buffer(std::move(owner), data, bytes);
}

StatusOr<Buffer> AllocateZeroed(size_t bytes) {
  const size_t mapped = RoundUp(std::max<size_t>(bytes, 1), 4096);
  void* range = mmap(nullptr, mapped, PROT_READ | PROT_WRITE,
                     MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (range == MAP_FAILED) return Refuse(bytes, AvailableMemory());
  std::shared_ptr<void> owner(range, [mapped](void* p) { munmap(p, mapped); });
  return Buffer(std::move(owner), static_cast<std::byte*>(range), bytes);
}

StatusOr<Buffer> AllocateOrdinary(size_t bytes) {
  return AllocateHostMemory(bytes, Pages::kOrdinary);
}

}  // namespace shardproof
