// The execution context of kernels (../kernels/rounds.h) over a fiber.
//
//     FiberContext context(thread);
//     Rounds rounds(context, world);
//     if (rounds.Begin() && AllReduceTwoShot<float, ReduceOp::kSum>(rounds, args)) rounds.End();
//
// Each access to data may let another fiber run, before it; each store of a flag does. The clock is the scheduler's
// turns.
//
// Orders is there for the tests, which weaken one and must then see ThreadSanitizer report it.
#ifndef SHARDPROOF_COLLECTIVES_BACKEND_CUDA_FIBER_FIBER_CONTEXT_H_
#define SHARDPROOF_COLLECTIVES_BACKEND_CUDA_FIBER_FIBER_CONTEXT_H_

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <type_traits>

#include "collectives/backend/cuda/fiber/fiber_scheduler.h"
#include "collectives/backend/cuda/kernels/rounds.h"

namespace shardproof::cuda {

struct StandardOrders {
  static constexpr int kStore = __ATOMIC_RELEASE;
  static constexpr int kLoad = __ATOMIC_ACQUIRE;
  // Whether a signal with this value to this flag is sent at all.
  static bool Sends(int /*rank*/, const uint32_t* /*flag*/,
                    uint32_t /*value*/) {
    return true;
  }
};

template <class Orders = StandardOrders>
class FiberContext {
 public:
  explicit FiberContext(FiberThread& thread) : thread_(thread) {}

  int rank() const { return thread_.rank(); }
  int block() const { return thread_.block(); }
  int blocks() const { return thread_.grid().blocks; }
  int thread() const { return thread_.thread(); }
  int threads() const { return thread_.grid().threads; }

  void Sync(int site = __builtin_LINE()) { thread_.Sync(false, site); }
  bool SyncOr(bool vote, int site = __builtin_LINE()) {
    return thread_.Sync(vote, site);
  }

  // The first lane that is not there, of a block that fills no warp, is an error of the run.
  template <class T>
  T ShuffleXor(const T& value, int mask, int site = __builtin_LINE()) {
    constexpr size_t kWord = sizeof(uint64_t);
    static_assert(std::is_trivially_copyable_v<T>);
    T other = value;
    const int source = (thread() % kWarp) ^ mask;
    for (size_t at = 0; at < sizeof(T); at += kWord) {
      const size_t bytes = sizeof(T) - at < kWord ? sizeof(T) - at : kWord;
      uint64_t word = 0;
      std::memcpy(&word, reinterpret_cast<const std::byte*>(&value) + at,
                  bytes);
      word = thread_.Shuffle(word, source, site);
      std::memcpy(reinterpret_cast<std::byte*>(&other) + at, &word, bytes);
    }
    return other;
  }
  template <int kBytes>
  std::byte* Shared() {
    if (kBytes > thread_.grid().shared_bytes) std::abort();
    return thread_.Shared();
  }
  // Relaxed; returns what was there.
  template <class T>
  T AtomicAdd(T* to, T value) {
    thread_.Preempt();
    return __atomic_fetch_add(to, value, __ATOMIC_RELAXED);
  }

  template <class T>
  static float Widen(T value) {
    return static_cast<float>(value);
  }
  template <class T>
  static T Narrow(float value) {
    return static_cast<T>(value);
  }

  void StoreRelease(uint32_t* flag, uint32_t value) {
    if (!Orders::Sends(rank(), flag, value)) return;
    thread_.Notify(flag,
                   [&] { __atomic_store_n(flag, value, Orders::kStore); });
  }
  SpinEnd Wait(const uint32_t* flag, uint32_t wanted, uint32_t before, int peer,
               uint64_t patience) {
    uint32_t seen = before;
    const bool ended =
        thread_.Spin(flag,
                     {.what = "the signal",
                      .peer = peer,
                      .wanted = wanted,
                      .deadline = patience == 0 ? 0 : thread_.Now() + patience},
                     [&] {
                       seen = __atomic_load_n(flag, Orders::kLoad);
                       return seen != before;
                     });
    if (!ended) return SpinEnd::kDeadline;
    return seen == wanted ? SpinEnd::kCame : SpinEnd::kBadSignal;
  }

  template <class T>
  T Load(const T* from) {
    RequireAligned<T>(from);
    thread_.Preempt();
    T value;
    std::memcpy(&value, from, sizeof(T));
    return value;
  }
  template <class T>
  void Store(T* to, const T& value) {
    RequireAligned<T>(to);
    thread_.Preempt();
    std::memcpy(static_cast<void*>(to), &value, sizeof(T));
  }

  uint64_t FailureWord(const uint64_t* word) {
    return __atomic_load_n(word, __ATOMIC_RELAXED);
  }
  // NOLINTNEXTLINE(readability-non-const-parameter): it is written.
  void Fail(uint64_t* word, uint64_t value) {
    uint64_t none = 0;
    __atomic_compare_exchange_n(word, &none, value, false, __ATOMIC_RELAXED,
                                __ATOMIC_RELAXED);
  }

 private:
  // What a GPU faults at, and the processor at hand does not.
  template <class T>
  static void RequireAligned(const void* address) {
    if (reinterpret_cast<uintptr_t>(address) % alignof(T) != 0) std::abort();
  }

  FiberThread& thread_;
};

}  // namespace shardproof::cuda

#endif  // SHARDPROOF_COLLECTIVES_BACKEND_CUDA_FIBER_FIBER_CONTEXT_H_
