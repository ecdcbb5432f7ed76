// Memory of one process that the other processes of its node can address.
//
// Every rank makes one heap, sends its name() to the others, and they map it:
//
//     SP_ASSIGN_OR_RETURN(auto heap, SharedHeap::Create({.budget = share}));
//     SP_ASSIGN_OR_RETURN(Buffer x, heap->Allocate(bytes));
//     ... in another process, given name = heap->name():
//     SP_ASSIGN_OR_RETURN(PeerHeap peer, PeerHeap::Open(name));
//     peer.base() + (x.data() - heap->base())      is where x lies there
//
// The heap is a large sparse file in memory (memfd_create), of which only what
// is allocated takes memory. So that a reservation can be generous, allocation
// needs no agreement between ranks, and blocks never move.
//
// Rejected: MPI_Win_allocate_shared. It is collective, so every buffer of every
// sub-communicator would need all ranks of the node, and Open MPI backs it with
// a file in its session directory, often on a disk and always without huge
// pages. Rejected: hugetlbfs, which an administrator has to set up.
#ifndef SHARDPROOF_COLLECTIVES_BACKEND_NODE_SHARED_HEAP_H_
#define SHARDPROOF_COLLECTIVES_BACKEND_NODE_SHARED_HEAP_H_

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <string_view>

#include "collectives/backend/node/free_list.h"
#include "collectives/backend/node/mapping.h"
#include "collectives/device.h"
#include "reference/status.h"

namespace shardproof {

// Where another process of the node finds a heap. Plain bytes: fit to be sent.
struct HeapName {
  std::array<char, 64> path{};
  uint64_t device = 0;  // With `inode`: which file it must be.
  uint64_t inode = 0;
  uint64_t bytes = 0;
};

struct SharedHeapOptions {
  // How peers find the file.
  enum class Backing {
    kMemfd,    // /proc/<pid>/fd/<n>: nothing is left behind after a crash.
    kShmFile,  // A file in /dev/shm, until Unlink(): for process containers
               // that share memory but not process numbers.
  };

  // Address space, in bytes; 0: the smaller of 64 GiB and twice the memory of
  // the machine.
  size_t reservation = 0;
  // What may be allocated at a time, in bytes; 0: 90 percent of
  // AvailableMemory(). Ranks of one node divide it among themselves.
  size_t budget = 0;
  bool huge_pages = true;
  Backing backing = Backing::kMemfd;
};

class SharedHeap : public std::enable_shared_from_this<SharedHeap> {
 public:
  static constexpr size_t kSmallAlignment = 128;  // Two lines: see Allocate.
  static constexpr size_t kHugePage = size_t{2} << 20;

  // kUnavailable when the system has no shared memory for us, with the reason.
  static StatusOr<std::shared_ptr<SharedHeap>> Create(
      const SharedHeapOptions& options = {});
  ~SharedHeap();
  SharedHeap(const SharedHeap&) = delete;
  SharedHeap& operator=(const SharedHeap&) = delete;

  // A block of `bytes`, aligned to 2 MiB from 2 MiB up and to 128 bytes below,
  // so that two buffers never share the pair of lines that the adjacent-line
  // prefetcher moves. Not cleared. The memory of large blocks is taken here
  // and not at the first touch: a full machine is an error, not a SIGBUS, page
  // faults stay out of what is timed, and pages lie on the owner's NUMA node.
  // kOutOfMemory says how much was asked for and how much there is.
  // Thread-safe, and so is the release of the buffer, which may outlive every
  // other reference to the heap.
  StatusOr<Buffer> Allocate(size_t bytes);

  const HeapName& name() const { return name_; }
  std::byte* base() const { return mapping_.base(); }
  size_t reservation() const { return mapping_.bytes(); }
  size_t budget() const { return budget_; }
  size_t in_use() const;

  // Takes the name away once every peer has opened it. Only kShmFile has one
  // that can be left behind.
  void Unlink();

 private:
  SharedHeap(FileDescriptor file, Mapping mapping, const HeapName& name,
             size_t budget, bool huge_pages, bool unlink);
  void Free(size_t offset, size_t bytes);
  Status Refuse(size_t bytes) const;

  FileDescriptor file_;
  Mapping mapping_;
  HeapName name_;
  size_t budget_;
  bool huge_pages_;
  bool unlink_;

  mutable std::mutex mutex_;
  FreeList free_;      // Guarded by mutex_.
  size_t in_use_ = 0;  // Guarded by mutex_.
};

// A heap of another process, mapped here until destroyed.
class PeerHeap {
 public:
  // kUnavailable when it cannot be opened from here, or when what `name` leads
  // to is another file (process numbers of another container).
  static StatusOr<PeerHeap> Open(const HeapName& name, bool huge_pages = true);

  std::byte* base() const { return mapping_.base(); }
  size_t bytes() const { return mapping_.bytes(); }

 private:
  explicit PeerHeap(Mapping mapping) : mapping_(std::move(mapping)) {}
  Mapping mapping_;
};

}  // namespace shardproof

#endif  // SHARDPROOF_COLLECTIVES_BACKEND_NODE_SHARED_HEAP_H_
