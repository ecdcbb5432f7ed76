#include "collectives/backend/node/mapping.h"

#include <sys/mman.h>
#include <unistd.h>

#include <cerrno>
#include <cstdint>
#include <cstring>

#include "collectives/backend/node/available_memory.h"

namespace shardproof {

FileDescriptor::~FileDescriptor() {
  if (valid()) close(fd_);
}

StatusOr<Mapping> Mapping::Create(const FileDescriptor& file, size_t bytes,
                                  bool huge_pages) {
  constexpr size_t kHugePage = size_t{2} << 20;
  // An address range with room to align in, which the mapping then replaces.
  const size_t room = bytes + kHugePage;
  void* range = mmap(nullptr, room, PROT_NONE,
                     MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (range == MAP_FAILED) {
    return Unavailable("no {} of address space ({}); see ulimit -v",
                       FormatBytes(room), std::strerror(errno));
  }
  const auto start = reinterpret_cast<uintptr_t>(range);
  const uintptr_t aligned = (start + kHugePage - 1) & ~(kHugePage - 1);
  void* base = mmap(static_cast<std::byte*>(range) + (aligned - start), bytes,
                    PROT_READ | PROT_WRITE,
                    MAP_SHARED | MAP_FIXED | MAP_NORESERVE, file.get(), 0);
  if (base == MAP_FAILED) {
    const int error = errno;
    munmap(range, room);
    return Unavailable("cannot map {} of shared memory: {}", FormatBytes(bytes),
                       std::strerror(error));
  }
  if (aligned > start) munmap(range, aligned - start);
  if (aligned + bytes < start + room) {
    munmap(static_cast<std::byte*>(base) + bytes,
           start + room - aligned - bytes);
  }
  // Without huge pages everything still works, only slower.
  if (huge_pages) madvise(base, bytes, MADV_HUGEPAGE);
  // A child made by fork has no business in the memory of a job.
  madvise(base, bytes, MADV_DONTFORK);
  return Mapping(static_cast<std::byte*>(base), bytes);
}

Mapping::~Mapping() {
  if (base_ != nullptr) munmap(base_, bytes_);
}

}  // namespace shardproof
