// For the tests: a grid of a kernel of attention in fibers, under the schedule of a seed, with what an emulated GPU does
// not look for: copies that nobody waits for.
#ifndef SHARDPROOF_ATTENTION_KERNELS_CUDA_TESTING_TILE_LAUNCHER_H_
#define SHARDPROOF_ATTENTION_KERNELS_CUDA_TESTING_TILE_LAUNCHER_H_

#include <cstddef>
#include <cstdint>
#include <vector>

#include "attention/kernels/cuda/device/fiber_tile_context.h"
#include "collectives/backend/cuda/fiber/fiber_scheduler.h"
#include "reference/status.h"

namespace shardproof::cuda::testing {

// Launches of kernels, grid by grid. Fibers are kept from one to the next.
class TileLauncher {
 public:
  struct Shape {
    int64_t blocks = 0;
    int threads = 0;
    uint32_t shared_bytes = 0;
  };

  // What the scheduler says, or that a copy was never waited for. `body` is called with a context.
  template <class Body>
  Status operator()(const Shape& shape, uint64_t seed, const Body& body) {
    if (shape.blocks == 0) return OkStatus();
    const int warps = shape.threads / kWarpLanes;
    const auto blocks = static_cast<int>(shape.blocks);
    tables_.assign(static_cast<size_t>(blocks * warps), {});
    lanes_.assign(static_cast<size_t>(blocks * shape.threads), {});
    for (size_t i = 0; i < lanes_.size(); ++i) {
      lanes_[i].Seed(seed * lanes_.size() + i);
    }
    // In two of three schedules a warp is far behind the others.
    const Status status = scheduler_.Run(
        {.blocks = blocks,
         .threads = shape.threads,
         .shared_bytes = static_cast<int>(shape.shared_bytes)},
        {.seed = seed,
         .preempt_one_in = 64,
         .slow_warp = seed % 3 == 0 ? -1 : static_cast<int>(seed / 3) % warps,
         .most_turns = int64_t{1} << 30},
        [&](FiberThread& thread) {
          const int at = thread.block() * shape.threads + thread.thread();
          FiberTileContext context(
              thread, {thread.block(), shape.shared_bytes},
              tables_[static_cast<size_t>(at / kWarpLanes)],
              lanes_[static_cast<size_t>(at)]);
          body(context);
        });
    if (!status.ok()) return status;
    for (const LaneState& lane : lanes_) {
      if (lane.pending_count > 0) {
        return Internal("{} copies of a thread are never waited for",
                        lane.pending_count);
      }
    }
    return OkStatus();
  }

 private:
  FiberScheduler scheduler_;
  std::vector<WarpTable> tables_;
  std::vector<LaneState> lanes_;
};

}  // namespace shardproof::cuda::testing

#endif  // SHARDPROOF_ATTENTION_KERNELS_CUDA_TESTING_TILE_LAUNCHER_H_
