// For the tests: a problem of ../../testing/tile_problem.h, computed by ../forward.h in fibers.
//
//     WarpgroupProblem problem(ShapeOf(DType::kBF16, 129, 65, 128), {.causal = true}, {.count = 129}, {.count = 65});
//     WarpgroupLauncher launch;
//     ASSERT_TRUE(problem.Forward(launch, seed).ok());
//     problem.ExpectForwardRight();
#ifndef SHARDPROOF_ATTENTION_KERNELS_CUDA_WARPGROUP_TESTING_WARPGROUP_PROBLEM_H_
#define SHARDPROOF_ATTENTION_KERNELS_CUDA_WARPGROUP_TESTING_WARPGROUP_PROBLEM_H_

#include <cstddef>
#include <cstdint>
#include <vector>

#include "attention/kernels/cuda/testing/tile_problem.h"
#include "attention/kernels/cuda/warpgroup/forward.h"
#include "attention/kernels/cuda/warpgroup/testing/fiber_warpgroup_context.h"

namespace shardproof::cuda::testing {

// Launches of kernels, block by block: blocks know nothing of one another.
class WarpgroupLauncher {
 public:
  struct Shape {
    int64_t blocks = 0;
    int threads = 0;
    uint32_t shared_bytes = 0;
  };

  // What the scheduler says, or what the machine found. `body` is called with a context.
  template <class Body>
  Status operator()(const Shape& shape, uint64_t seed, const Body& body) {
    for (int64_t block = 0; block < shape.blocks; ++block) {
      SP_RETURN_IF_ERROR(RunBlock(shape, static_cast<int>(block),
                                  seed * static_cast<uint64_t>(shape.blocks) +
                                      static_cast<uint64_t>(block),
                                  body));
    }
    return OkStatus();
  }

 private:
  template <class Body>
  Status RunBlock(const Shape& shape, int block, uint64_t seed,
                  const Body& body) {
    const auto threads = static_cast<size_t>(shape.threads);
    const int warps = shape.threads / kWarpLanes;
    BlockMachine machine;
    meetings_.assign(threads / kWarpLanes, {});
    lanes_.assign(threads, {});
    for (size_t i = 0; i < threads; ++i) lanes_[i].Seed(seed * threads + i);
    // In two of three schedules a warp is far behind the others.
    const Status status = scheduler_.Run(
        {.threads = shape.threads,
         .shared_bytes = static_cast<int>(shape.shared_bytes)},
        {.seed = seed,
         .preempt_one_in = 64,
         .slow_warp = seed % 3 == 0 ? -1 : static_cast<int>(seed / 3) % warps,
         .most_turns = int64_t{1} << 30},
        [&](FiberThread& thread) {
          const auto at = static_cast<size_t>(thread.thread());
          FiberWarpgroupContext context(thread, machine,
                                        meetings_[at / kWarpLanes], lanes_[at],
                                        {block, shape.shared_bytes});
          body(context);
          context.Finish();
        });
    if (machine.error() != nullptr) return Internal("{}", machine.error());
    if (!status.ok()) return status;
    if (const char* error = machine.Unfinished()) {
      return Internal("{}", error);
    }
    int registers = 0;
    for (int group = 0; group < warps / kWarpgroupWarps; ++group) {
      registers += machine.registers(group) * kWarpgroupThreads;
      const int asked = machine.asked(group);
      if (asked != 0 && asked != kWarpgroupThreads) {
        return Internal("setmaxnreg by {} threads of a warpgroup", asked);
      }
    }
    if (registers > 65536) return Internal("{} registers taken", registers);
    return OkStatus();
  }

  FiberScheduler scheduler_;
  std::vector<WarpMeeting> meetings_;
  std::vector<WarpgroupLane> lanes_;
};

struct WarpgroupProblem : TileProblem {
  using TileProblem::TileProblem;

  template <class Protocol = StandardWarpgroupProtocol>
  Status Forward(WarpgroupLauncher& launch, uint64_t seed) {
    WarpgroupForwardArgs args = {};
    args.flash = {.work = Work(),
                  .q = TileIn("q"),
                  .k = TileIn("k"),
                  .v = TileIn("v"),
                  .o = TileOut("o"),
                  .o_is_wide = t.at("o").dtype() == DType::kF32,
                  .lse = t.at("lse").data<float>(),
                  .lse_stride = queries.count};
    return VisitTile(shape.dtype, shape.head_dim, [&]<class T, int kHeadDim> {
      using Tiling = WarpgroupTiling<kHeadDim>;
      TileMapSpec specs[3];
      const char* reason =
          WhyNotWarpgroups(args.flash, shape.dtype, kHeadDim, Tiling::kRows,
                           Tiling::kKeys, specs);
      TileMap* const maps[] = {&args.q, &args.k, &args.v};
      for (int i = 0; i < 3 && reason == nullptr; ++i) {
        reason = EncodeForFibers(specs[i], *maps[i]);
      }
      if (reason != nullptr) return Unsupported("{}", reason);
      return launch(
          {FlashBlocks(TilesOf(Queries(), Tiling::kRows), Heads(), Sequences()),
           Tiling::kThreads, Tiling::kSharedBytes},
          seed, [&](FiberWarpgroupContext& context) {
            WarpgroupForward<T, Tiling, Protocol>(context, args);
          });
    });
  }
};

}  // namespace shardproof::cuda::testing

#endif  // SHARDPROOF_ATTENTION_KERNELS_CUDA_WARPGROUP_TESTING_WARPGROUP_PROBLEM_H_
