// The execution context of kernels on an emulated GPU: a fiber, as in ../fiber/fiber_context.h, whose flags other
// threads write too. So a wait looks at its flag again and again, which the scheduler takes for work, and its deadline
// is the clock's, as on a GPU.
#ifndef SHARDPROOF_COLLECTIVES_BACKEND_CUDA_DEVICE_EMULATED_CONTEXT_H_
#define SHARDPROOF_COLLECTIVES_BACKEND_CUDA_DEVICE_EMULATED_CONTEXT_H_

#include <chrono>
#include <cstdint>
#include <thread>

#include "collectives/backend/cuda/fiber/fiber_context.h"
#include "collectives/backend/cuda/fiber/fiber_scheduler.h"
#include "collectives/backend/cuda/kernels/rounds.h"
#include "collectives/backend/cuda/kernels/world.h"

namespace shardproof::cuda {

class EmulatedContext : public FiberContext<> {
 public:
  EmulatedContext(FiberThread& thread, const Residents& residents)
      : FiberContext<>(thread),
        thread_(thread),
        rank_(residents.ranks[thread.rank()]) {}

  int rank() const { return rank_; }

  // NOLINTNEXTLINE(readability-non-const-parameter): it is written.
  void StoreRelease(uint32_t* flag, uint32_t value) {
    __atomic_store_n(flag, value, __ATOMIC_RELEASE);
    thread_.Preempt();
  }
  SpinEnd Wait(const uint32_t* flag, uint32_t wanted, uint32_t before,
               int /*peer*/, uint64_t patience) {
    using Clock = std::chrono::steady_clock;
    constexpr int kLooks = 32;
    const Clock::time_point start = Clock::now();
    for (int looks = 1;; ++looks) {
      const uint32_t seen = __atomic_load_n(flag, __ATOMIC_ACQUIRE);
      if (seen == wanted) return SpinEnd::kCame;
      if (seen != before) return SpinEnd::kBadSignal;
      thread_.Yield();
      if (looks % kLooks != 0) continue;
      if (patience != 0 &&
          Clock::now() - start > std::chrono::nanoseconds(patience)) {
        return SpinEnd::kDeadline;
      }
      // The peer may be on another GPU, whose thread needs the core.
      std::this_thread::yield();
    }
  }

 private:
  FiberThread& thread_;
  int rank_;
};

using EmulatedRounds = Rounds<EmulatedContext>;

}  // namespace shardproof::cuda

#endif  // SHARDPROOF_COLLECTIVES_BACKEND_CUDA_DEVICE_EMULATED_CONTEXT_H_
