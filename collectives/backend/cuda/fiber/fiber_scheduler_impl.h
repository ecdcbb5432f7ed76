// The insides of FiberScheduler, for its two source files.
//
// The scheduler is the fiber that called Run. It alone chooses, counts and wakes; another fiber writes down what it
// stopped for and switches to it. What both touch is relaxed atomics, which ThreadSanitizer takes for neither a race
// nor an order.
#ifndef SHARDPROOF_COLLECTIVES_BACKEND_CUDA_FIBER_FIBER_SCHEDULER_IMPL_H_
#define SHARDPROOF_COLLECTIVES_BACKEND_CUDA_FIBER_FIBER_SCHEDULER_IMPL_H_

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "collectives/backend/cuda/fiber/fiber.h"
#include "collectives/backend/cuda/fiber/fiber_scheduler.h"

namespace shardproof::cuda {

class FiberScheduler::Impl {
 public:
  enum class Stop : uint8_t {
    kTurn,         // Another may go on.
    kWoke,         // A flag was written.
    kSpin,         // Waits for a flag.
    kSync,         // At a barrier of the block.
    kShuffle,      // At a shuffle of the warp.
    kEndOfKernel,  // At the barrier of the rank.
    kDone,
  };

  // Where the threads of a warp, a block or a rank wait for each other. Consecutive rounds have sync addresses of their own:
  // a thread that is early in the next round must not lend its order to one that is late in this.
  struct Barrier {
    std::array<char, 2> sync{};
    int waiting = 0;
    int site = 0;
    bool vote = false;
  };

  struct Slot {
    Fiber fiber;
    FiberThread thread;
    // What the fiber writes and the scheduler reads.
    std::atomic<Stop> stop{Stop::kTurn};
    std::atomic<const uint32_t*> flag{nullptr};
    std::atomic<int> site{0};
    std::atomic<bool> vote{false};
    std::atomic<const char*> what{nullptr};
    std::atomic<int> peer{-1};
    std::atomic<uint32_t> wanted{0};
    std::atomic<uint64_t> deadline{0};
    std::atomic<uint64_t> given{0};
    std::atomic<int> source{0};
    // What the scheduler writes and the fiber reads.
    std::atomic<bool> answer{false};
    std::atomic<uint64_t> gotten{0};
    // The fiber's own.
    std::array<uint32_t, 2> rounds{};
    // The scheduler's own.
    int weight = kFullWeight;
  };

  // Which threads wait for each other.
  struct Members {
    int first = 0;
    int count = 0;
  };

  struct alignas(16) SharedUnit {
    std::array<std::byte, 16> bytes;
  };

  Status Run(const Grid& grid, const FiberSchedule& schedule,
             const std::function<void(FiberThread&)>& body,
             FiberScheduler* owner);

  // --- Called by the fibers ----------------------------------------------------------------------------------------
  void Park(int index, Stop stop);
  bool Meet(int index, Stop stop, bool vote, int site);
  uint64_t Shuffle(int index, uint64_t value, int source, int site);
  std::byte* Shared(int index) {
    return reinterpret_cast<std::byte*>(shared_[BlockOf(index)].data());
  }
  bool Await(int index, const uint32_t* flag, const SpinNote& note);
  void Wake(int index, const uint32_t* flag) {
    slots_[index]->flag.store(flag, kRelaxed);
    Park(index, Stop::kWoke);
  }
  void Preempt(int index) {
    if (preempt_one_in_ != 0 && NextRandom(random_) % preempt_one_in_ == 0) {
      Park(index, Stop::kTurn);
    }
  }
  uint64_t Now() const { return turns_.load(kRelaxed); }

  uint64_t trace() const { return trace_; }
  const Grid& grid() const { return grid_; }

 private:
  static constexpr auto kRelaxed = std::memory_order_relaxed;
  // In 64ths of a turn.
  static constexpr int kFullWeight = 64;

  static uint64_t NextRandom(std::atomic<uint64_t>& state);
  static void Loop(void* slot);

  Status Prepare(FiberScheduler* owner);
  void DrawWeights(const FiberSchedule& schedule);
  void SwitchAll(bool synchronizes);
  Status Turns(int64_t most);
  int Choose();
  Status After(int index);
  Status Arrive(int index, Stop stop);
  Status Leave(int index);
  void Ready(int index) { ready_.push_back(index); }
  void WakeSpinners(const uint32_t* flag);
  bool JumpToDeadline();
  Status Deadlock() const;

  int BlockOf(int index) const { return index / grid_.threads; }
  int RankOf(int index) const { return index / (grid_.threads * grid_.blocks); }
  std::string Threads(int block, Stop stop) const;
  Members MembersOf(int index, Stop stop) const;
  Barrier& BarrierOf(int index, Stop stop) {
    if (stop == Stop::kShuffle) {
      return warp_barriers_[MembersOf(index, stop).first];
    }
    return stop == Stop::kSync ? block_barriers_[BlockOf(index)]
                               : rank_barriers_[RankOf(index)];
  }
  Status Diverged(int index, std::string_view what) const;

  Grid grid_;
  Fiber main_;
  const std::function<void(FiberThread&)>* body_ = nullptr;
  std::vector<std::unique_ptr<Slot>> slots_;
  int size_ = 0;
  uint64_t preempt_one_in_ = 0;
  std::atomic<uint64_t> random_{0}, turns_{0};
  std::atomic<bool> abandoned_{false};
  uint64_t trace_ = 0;
  int last_ = -1, unfinished_ = 0;
  bool sticky_ = false;
  std::vector<int> ready_, spinning_;
  // Of a warp: at the index of its first thread.
  std::vector<Barrier> block_barriers_, rank_barriers_, warp_barriers_;
  std::vector<std::vector<SharedUnit>> shared_;
  std::vector<int> done_in_block_;
};

}  // namespace shardproof::cuda

#endif  // SHARDPROOF_COLLECTIVES_BACKEND_CUDA_FIBER_FIBER_SCHEDULER_IMPL_H_
