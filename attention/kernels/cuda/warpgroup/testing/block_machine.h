// For the tests: what the threads of a block share beside memory, as an sm_90a multiprocessor has it. Barriers with phases,
// arrivals and bytes; which parts of shared memory copies under way write and products under way read; registers given and
// taken; and the first thing that was wrong.
//
// All fields are relaxed atomics, so that fibers are ordered by nothing but what orders the threads of a GPU: an arrival
// releases, and a wait that it ends acquires.
#ifndef SHARDPROOF_ATTENTION_KERNELS_CUDA_WARPGROUP_TESTING_BLOCK_MACHINE_H_
#define SHARDPROOF_ATTENTION_KERNELS_CUDA_WARPGROUP_TESTING_BLOCK_MACHINE_H_

#include <array>
#include <cstddef>
#include <cstdint>

#include "attention/kernels/cuda/warpgroup/wgmma.h"
#include "collectives/backend/cuda/fiber/fiber_scheduler.h"

namespace shardproof::cuda::testing {

class BlockMachine {
 public:
  static constexpr int kMostSharedBytes = 227 << 10;
  static constexpr int kMostWarpgroups = 4;
  static constexpr int kMostBarriers = 32;

  // The first of them stays.
  void Note(const char* error) {
    const char* none = nullptr;
    __atomic_compare_exchange_n(&error_, &none, error, false, __ATOMIC_RELAXED,
                                __ATOMIC_RELAXED);
  }
  const char* error() const { return Get(error_); }

  // --- Barriers ----------------------------------------------------------------------------------------------------

  void Initialize(uint32_t offset, int arrivals) {
    Barrier& barrier = BarrierAt(offset);
    if (Get(barrier.arrivals) != 0) Note("a barrier is initialized again");
    Set(barrier.arrivals, arrivals);
    Set(barrier.missing, arrivals);
  }
  // Adds to the bytes that the current phase waits for, which may come before they are expected.
  void AddBytes(FiberThread& thread, uint32_t offset, int64_t bytes) {
    Barrier& barrier = Known(offset);
    Set(barrier.bytes, Get(barrier.bytes) + bytes);
    __atomic_fetch_add(&barrier.order, 1, __ATOMIC_ACQ_REL);
    CompleteWhereDone(thread, barrier);
  }
  void Arrive(FiberThread& thread, uint32_t offset) {
    Barrier& barrier = Known(offset);
    if (Get(barrier.missing) == 0) {
      Note("more arrivals at a barrier than a phase has");
      return;
    }
    Set(barrier.missing, Get(barrier.missing) - 1);
    __atomic_fetch_add(&barrier.order, 1, __ATOMIC_ACQ_REL);
    CompleteWhereDone(thread, barrier);
  }
  bool IsComplete(uint32_t offset, uint32_t parity) {
    Barrier& barrier = Known(offset);
    __atomic_load_n(&barrier.order, __ATOMIC_ACQUIRE);
    return (Get(barrier.phases) & 1) != parity;
  }
  void Await(FiberThread& thread, uint32_t offset, uint32_t parity) {
    Barrier& barrier = Known(offset);
    thread.Spin(&barrier.phases,
                {.what = "the phase of a barrier",
                 .peer = static_cast<int>(offset),
                 .wanted = parity},
                [&] { return IsComplete(offset, parity); });
  }
  // Phases that are complete.
  uint32_t Phases(uint32_t offset) { return Get(Known(offset).phases); }
  static size_t NumberOf(uint32_t offset) { return offset / 8 % kMostBarriers; }

  // At the end: what the block is not done with.
  const char* Unfinished() const {
    for (const Barrier& barrier : barriers_) {
      if (barrier.arrivals != 0 && barrier.bytes != 0) {
        return "bytes that are expected and do not come, or come unexpected";
      }
    }
    return nullptr;
  }

  // --- Shared memory, by its atoms ---------------------------------------------------------------------------------

  enum class Use : uint8_t { kReading, kWriting };
  void Begin(Use use, uint32_t offset) { Count(use, offset, 1); }
  void End(Use use, uint32_t offset) { Count(use, offset, -1); }
  bool Is(Use use, uint32_t offset) const {
    return Get(uses_[static_cast<size_t>(use)][offset / kAtomBytes]) > 0;
  }

  // Who reads an atom has to have seen the phase that ends with its last copy.
  struct Copied {
    uint32_t barrier = 0;
    uint32_t phases = 0;  // 0: never copied to.
  };
  void SetCopied(uint32_t offset, uint32_t barrier) {
    Copied& copied = copied_[offset / kAtomBytes];
    Set(copied.barrier, barrier);
    Set(copied.phases, Phases(barrier) + 1);
  }
  Copied CopiedTo(uint32_t offset) const {
    const Copied& copied = copied_[offset / kAtomBytes];
    return {Get(copied.barrier), Get(copied.phases)};
  }

  // --- Registers ---------------------------------------------------------------------------------------------------

  // By all threads of a warpgroup, each once.
  void SetRegisters(int warpgroup, int registers) {
    if (registers % 8 != 0 || registers < 24 || registers > 256) {
      Note("a number of registers that setmaxnreg does not take");
    }
    int& mine = registers_[static_cast<size_t>(warpgroup)];
    if (Get(mine) != 0 && Get(mine) != registers) {
      Note("threads of a warpgroup with different numbers of registers");
    }
    Set(mine, registers);
    int& threads = asked_[static_cast<size_t>(warpgroup)];
    Set(threads, Get(threads) + 1);
  }
  int registers(int warpgroup) const {
    return registers_[static_cast<size_t>(warpgroup)];
  }
  int asked(int warpgroup) const {
    return asked_[static_cast<size_t>(warpgroup)];
  }

 private:
  struct Barrier {
    int arrivals = 0;  // Of a phase; 0: not initialized.
    int missing = 0;
    int64_t bytes = 0;
    uint32_t phases = 0;  // Completed.
    uint32_t order = 0;
  };

  template <class T>
  static T Get(const T& field) {
    return __atomic_load_n(&field, __ATOMIC_RELAXED);
  }
  template <class T, class U>
  static void Set(T& field, U value) {
    __atomic_store_n(&field, static_cast<T>(value), __ATOMIC_RELAXED);
  }

  // They lie side by side, in any place.
  Barrier& BarrierAt(uint32_t offset) {
    if (offset % 8 != 0) Note("a barrier that is not at a multiple of 8");
    return barriers_[NumberOf(offset)];
  }
  Barrier& Known(uint32_t offset) {
    Barrier& barrier = BarrierAt(offset);
    if (Get(barrier.arrivals) == 0) Note("a barrier that nobody initialized");
    return barrier;
  }
  void CompleteWhereDone(FiberThread& thread, Barrier& barrier) {
    if (Get(barrier.missing) != 0 || Get(barrier.bytes) != 0) return;
    Set(barrier.missing, Get(barrier.arrivals));
    thread.Notify(&barrier.phases,
                  [&] { Set(barrier.phases, Get(barrier.phases) + 1); });
  }
  void Count(Use use, uint32_t offset, int by) {
    int& count = uses_[static_cast<size_t>(use)][offset / kAtomBytes];
    Set(count, Get(count) + by);
  }

  std::array<Barrier, kMostBarriers> barriers_;
  std::array<std::array<int, kMostSharedBytes / kAtomBytes>, 2> uses_{};
  std::array<Copied, kMostSharedBytes / kAtomBytes> copied_{};
  std::array<int, kMostWarpgroups> registers_{}, asked_{};
  const char* error_ = nullptr;
};

}  // namespace shardproof::cuda::testing

#endif  // SHARDPROOF_ATTENTION_KERNELS_CUDA_WARPGROUP_TESTING_BLOCK_MACHINE_H_
