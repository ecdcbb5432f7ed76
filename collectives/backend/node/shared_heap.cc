#include "collectives/backend/node/shared_heap.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>

#include "collectives/backend/node/available_memory.h"

namespace shardproof {
namespace {

constexpr size_t kGib = size_t{1} << 30;

// Since Linux 5.14 and 6.1; the headers may be older than the kernel, or newer.
constexpr int kMadvPopulateWrite = 23;
constexpr int kMadvCollapse = 25;

size_t RoundUp(size_t value, size_t unit) {
  return (value + unit - 1) / unit * unit;
}

size_t DefaultReservation() {
  const size_t memory = static_cast<size_t>(sysconf(_SC_PHYS_PAGES)) *
                        static_cast<size_t>(sysconf(_SC_PAGESIZE));
  return std::min(64 * kGib, 2 * memory);
}

// Takes memory for [data, data + bytes), whole huge pages. False, with errno,
// where there is none.
//
// The kernel makes huge pages of shared memory at the first touch only where an
// administrator allowed it (transparent_hugepage/shmem_enabled, by default
// "never"), but on request everywhere: MADV_COLLAPSE turns 2 MiB of which at
// least one page exists into one huge page. So one page of each is touched, then
// collapsed, and then whatever is still missing is filled with small ones.
//
// What it buys depends on the machine. Two ranks that each copy out of the
// other's heap, medians, where memory gives 20 GB/s: 8, 5, 5 and 3 percent of
// the time at 4, 16, 64 and 256 MiB; taking 64 MiB is 2.5 times as fast while
// the system has huge pages free, and as slow again while it has to make them.
bool Populate(std::byte* data, size_t bytes, bool huge_pages) {
  constexpr size_t kSmallPage = 4096;
  if (huge_pages) {
    for (size_t at = 0; at < bytes; at += SharedHeap::kHugePage) {
      if (madvise(data + at, kSmallPage, kMadvPopulateWrite) != 0) break;
    }
    // Small pages are no error: an old kernel, or fragmented memory.
    madvise(data, bytes, kMadvCollapse);
  }
  // EINVAL: the kernel is older than the request; pages come at first touch.
  return madvise(data, bytes, kMadvPopulateWrite) == 0 || errno == EINVAL;
}

void SetPath(HeapName& name, const std::string& path) {
  const size_t length = std::min(path.size(), name.path.size() - 1);
  std::copy_n(path.begin(), length, name.path.begin());
}

StatusOr<FileDescriptor> OpenMemfd(HeapName& name) {
  FileDescriptor file(memfd_create("shardproof-heap", MFD_CLOEXEC));
  if (!file.valid()) {
    return Unavailable("no shared memory: memfd_create: {}",
                       std::strerror(errno));
  }
  SetPath(name, fmt::format("/proc/{}/fd/{}", getpid(), file.get()));
  return file;
}

StatusOr<FileDescriptor> OpenShmFile(HeapName& name) {
  // A name that is taken was left behind by a process with our number; the
  // next one will be free.
  for (int attempt = 0; attempt < 1000; ++attempt) {
    const std::string path =
        fmt::format("/dev/shm/shardproof-{}-{}", getpid(), attempt);
    FileDescriptor file(
        open(path.c_str(), O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600));
    if (file.valid()) {
      SetPath(name, path);
      return file;
    }
    if (errno != EEXIST) {
      return Unavailable("no shared memory: {}: {}", path,
                         std::strerror(errno));
    }
  }
  return Unavailable(
      "no shared memory: /dev/shm is full of files named shardproof-{}-*",
      getpid());
}

}  // namespace

StatusOr<std::shared_ptr<SharedHeap>> SharedHeap::Create(
    const SharedHeapOptions& options) {
  using Backing = SharedHeapOptions::Backing;
  HeapName name;
  SP_ASSIGN_OR_RETURN(FileDescriptor file, options.backing == Backing::kMemfd
                                               ? OpenMemfd(name)
                                               : OpenShmFile(name));
  size_t bytes = RoundUp(
      options.reservation > 0 ? options.reservation : DefaultReservation(),
      kHugePage);
  // The address space may be limited (ulimit -v); a smaller heap still serves.
  StatusOr<Mapping> mapping = Mapping::Create(file, bytes, options.huge_pages);
  while (!mapping.ok() && options.reservation == 0 && bytes > kGib / 4) {
    bytes = RoundUp(bytes / 2, kHugePage);
    mapping = Mapping::Create(file, bytes, options.huge_pages);
  }
  const bool sized =
      mapping.ok() && ftruncate(file.get(), static_cast<off_t>(bytes)) == 0;
  struct stat facts {};
  if (!sized || fstat(file.get(), &facts) != 0) {
    const int error = errno;
    if (options.backing == Backing::kShmFile) unlink(name.path.data());
    if (!mapping.ok()) return mapping.status();
    return Unavailable("cannot make {} of shared memory: {}",
                       FormatBytes(bytes), std::strerror(error));
  }
  name.device = facts.st_dev;
  name.inode = facts.st_ino;
  name.bytes = bytes;
  const size_t budget = std::min(
      bytes, options.budget > 0 ? options.budget : AvailableMemory() / 10 * 9);
  return std::shared_ptr<SharedHeap>(
      new SharedHeap(std::move(file), *std::move(mapping), name, budget,
                     options.huge_pages, options.backing == Backing::kShmFile));
}

SharedHeap::SharedHeap(FileDescriptor file, Mapping mapping,
                       const HeapName& name, size_t budget, bool huge_pages,
                       bool unlink)
    : file_(std::move(file)),
      mapping_(std::move(mapping)),
      name_(name),
      budget_(budget),
      huge_pages_(huge_pages),
      unlink_(unlink),
      free_(mapping_.bytes()) {}

SharedHeap::~SharedHeap() { Unlink(); }

void SharedHeap::Unlink() {
  if (std::exchange(unlink_, false)) unlink(name_.path.data());
}

size_t SharedHeap::in_use() const {
  std::lock_guard lock(mutex_);
  return in_use_;
}

Status SharedHeap::Refuse(size_t bytes) const {
  return OutOfMemory(
      "{} of shared memory asked for, but this rank has {} left of its {} (its "
      "share of the node's memory), and {} are available on the node; use "
      "smaller sizes or fewer ranks",
      FormatBytes(bytes), FormatBytes(budget_ - in_use_), FormatBytes(budget_),
      FormatBytes(AvailableMemory()));
}

StatusOr<Buffer> SharedHeap::Allocate(size_t bytes) {
  const bool large = bytes >= kHugePage;
  const size_t unit = large ? kHugePage : kSmallAlignment;
  // Whole huge pages for large blocks, so that they can be given back.
  const size_t rounded = bytes <= reservation()
                             ? std::max(RoundUp(bytes, unit), kSmallAlignment)
                             : bytes;
  std::optional<size_t> offset;
  {
    std::lock_guard lock(mutex_);
    if (rounded <= budget_ - in_use_ &&
        (!large || rounded <= AvailableMemory())) {
      offset = free_.Take(rounded, unit);
    }
    if (!offset) return Refuse(bytes);
    in_use_ += rounded;
  }
  Buffer buffer(std::shared_ptr<void>(
                    base() + *offset,
                    [heap = shared_from_this(), rounded](void* data) {
                      heap->Free(static_cast<std::byte*>(data) - heap->base(),
                                 rounded);
                    }),
                base() + *offset, bytes);
  if (large && !Populate(buffer.data(), rounded, huge_pages_)) {
    std::lock_guard lock(mutex_);
    return Refuse(bytes).WithContext(std::strerror(errno));
  }
  return buffer;
}

void SharedHeap::Free(size_t offset, size_t bytes) {
  // Gives the memory back to the system, and drops it from every peer's page
  // tables. Fails only where the file system cannot: then it stays allocated.
  if (bytes >= kHugePage) {
    fallocate(file_.get(), FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
              static_cast<off_t>(offset), static_cast<off_t>(bytes));
  }
  std::lock_guard lock(mutex_);
  free_.Return(offset, bytes);
  in_use_ -= bytes;
}

StatusOr<PeerHeap> PeerHeap::Open(const HeapName& name, bool huge_pages) {
  FileDescriptor file(open(name.path.data(), O_RDWR | O_CLOEXEC));
  if (!file.valid()) {
    return Unavailable("cannot open the memory of a peer, {}: {}",
                       name.path.data(), std::strerror(errno));
  }
  struct stat facts {};
  if (fstat(file.get(), &facts) != 0 || facts.st_dev != name.device ||
      facts.st_ino != name.inode) {
    return Unavailable("{} is not the memory of a peer but another file",
                       name.path.data());
  }
  SP_ASSIGN_OR_RETURN(Mapping mapping,
                      Mapping::Create(file, name.bytes, huge_pages));
  return PeerHeap(std::move(mapping));
}

}  // namespace shardproof
