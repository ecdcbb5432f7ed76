// The threads of CUDA kernels as fibers of one CPU thread, under a seeded random scheduler.
//
//     for every rank, block and thread of a grid: a fiber runs body(thread);
//     the order in which they take turns is a function of the seed
//
// A fiber runs until it reaches a barrier, waits for a flag, writes one, or, now and then, touches data (Preempt). So
// one run is one interleaving, the same for the same seed, and many seeds are many interleavings. When nobody can go
// on, the run ends with a report of who waits for what; so it does when threads of a block part at a barrier, threads of
// a warp at a shuffle, or return from one.
//
//     FiberScheduler scheduler;
//     const Status status = scheduler.Run({.ranks = 4, .blocks = 2, .threads = 8}, {.seed = 7}, [&](FiberThread& thread) {
//       data[thread.rank()] = 1;
//       thread.Sync();
//       thread.Notify(&flag, [&] { __atomic_store_n(&flag, 1, __ATOMIC_RELEASE); });
//       thread.Spin(&flag, {.what = "the flag", .wanted = 1}, [&] { return __atomic_load_n(&flag, __ATOMIC_ACQUIRE) == 1; });
//     });
//
// Under ThreadSanitizer every fiber is a thread of its own (its fiber API), and only what a GPU gives is an order
// between two of them: a barrier, the end of a kernel, or a release that an acquire reads. Taking turns is none. So a
// store that should have been a release is reported as a data race although every interleaving that runs is
// sequentially consistent.
//
// What it cannot see: the scopes of PTX (.gpu, .sys), the divergence of warps, asynchronous copies, tensor cores, and
// any reordering that needs relaxed memory to show in the data. For the last there is ThreadSanitizer.
//
// Errors of Run: kInternal "deadlock: ...", "divergence: ..." or "no end after ..."; kOutOfMemory. After an error the
// fibers are abandoned where they stand: destructors on their stacks do not run, so a body keeps nothing there that
// needs one.
//
// Rejected: a CPU thread for each CUDA thread (hundreds of them, in orders that no seed repeats), and an interpreter of
// PTX (exact in what it covers, and a project of its own).
#ifndef SHARDPROOF_COLLECTIVES_BACKEND_CUDA_FIBER_FIBER_SCHEDULER_H_
#define SHARDPROOF_COLLECTIVES_BACKEND_CUDA_FIBER_FIBER_SCHEDULER_H_

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>

#include "reference/status.h"

namespace shardproof::cuda {

struct Grid {
  int ranks = 1;
  int blocks = 1;   // Of each rank.
  int threads = 1;  // Of each block.
  // Of the memory that the threads of a block share. It begins as NaN.
  int shared_bytes = 0;
};

inline constexpr int kWarp = 32;

struct FiberSchedule {
  uint64_t seed = 0;
  // A data access lets another fiber run with this probability, 1 in n; 0: never.
  int preempt_one_in = 8;
  // This rank gets a 64th of the turns that another gets; -1: the seed says who is slow.
  int slow_rank = -1;
  // So does this warp of every block.
  int slow_warp = -1;
  // After so many turns the run ends with an error.
  int64_t most_turns = int64_t{1} << 24;
};

// What a fiber waits for, for the report of a deadlock: "<what> of rank <peer> to be <wanted>".
struct SpinNote {
  const char* what = "a flag";
  int peer = -1;
  uint32_t wanted = 0;
  // The turn at which the wait ends unsuccessfully; 0: never. Turns count on as long as anybody can go on, and when
  // nobody can they jump to the first deadline: a clock that no load of the machine disturbs.
  uint64_t deadline = 0;
};

class FiberScheduler;

// The end of the scheduler that one fiber holds.
class FiberThread {
 public:
  int rank() const { return rank_; }
  int block() const { return block_; }
  int thread() const { return thread_; }
  const Grid& grid() const;

  // __syncthreads and __syncthreads_or: returns whether any thread of the block came with `vote`. `site` tells barriers
  // apart; threads of a block that wait at different ones have diverged.
  bool Sync(bool vote = false, int site = __builtin_LINE());
  // __shfl_sync of a whole warp, threads 32 w to 32 w + 31 of the block or as many as there are: each gives a value and
  // gets that of lane `source`. Waits for all of them, and is an order between their accesses to memory in no way.
  uint64_t Shuffle(uint64_t value, int source, int site = __builtin_LINE());
  // What the block shares: grid().shared_bytes, 16-byte aligned.
  std::byte* Shared();
  // Where one kernel of this rank ends and the next begins: waits for every thread of every block of the rank.
  void EndOfKernel(int site = __builtin_LINE());

  // Calls `done` until it returns true, and lets others run while it does not and `flag` has not been written. False at
  // the deadline of the note.
  template <class Done>
  bool Spin(const uint32_t* flag, const SpinNote& note, const Done& done) {
    while (!done()) {
      if (!Await(flag, note)) return false;
    }
    return true;
  }
  // Calls `store`, which writes `flag`, and wakes who spins on it.
  template <class Store>
  void Notify(const uint32_t* flag, const Store& store) {
    store();
    Wake(flag);
  }
  // A data access: now and then another fiber gets its turn.
  void Preempt();
  // Another fiber gets its turn, if one can go on: for waits that the scheduler knows nothing of.
  void Yield();
  // The turns taken so far.
  uint64_t Now() const;

 private:
  friend class FiberScheduler;
  bool Await(const uint32_t* flag, const SpinNote& note);
  void Wake(const uint32_t* flag);

  FiberScheduler* scheduler_ = nullptr;
  int index_ = 0, rank_ = 0, block_ = 0, thread_ = 0;
};

// Keeps its fibers from one run to the next. Used by one thread.
class FiberScheduler {
 public:
  FiberScheduler();
  ~FiberScheduler();
  FiberScheduler(const FiberScheduler&) = delete;
  FiberScheduler& operator=(const FiberScheduler&) = delete;

  // Runs `body` in every fiber of the grid to its end.
  Status Run(const Grid& grid, const FiberSchedule& schedule,
             const std::function<void(FiberThread&)>& body);

  // Of the last run.
  uint64_t turns() const;
  // A number that two runs have in common if they took the same turns.
  uint64_t trace() const;

 private:
  friend class FiberThread;
  class Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace shardproof::cuda

#endif  // SHARDPROOF_COLLECTIVES_BACKEND_CUDA_FIBER_FIBER_SCHEDULER_H_
