#include "attention/kernels/cuda/device/emulated_flash.h"

#include <cstdint>

#include "attention/kernels/cuda/arguments.h"
#include "attention/kernels/cuda/device/fiber_tile_context.h"
#include "attention/kernels/cuda/forward.h"
#include "attention/kernels/cuda/key_gradients.h"
#include "attention/kernels/cuda/query_gradients.h"

namespace shardproof::cuda {
namespace {

// One kernel, its type, tiling, arguments and rows chosen: what follows needs no
// more of it than these.
template <class T, class TilingT>
struct Forward {
  using Tiling = TilingT;
  using Args = FlashForwardArgs;
  static constexpr uint32_t kSharedBytes = ForwardSharedBytes<Tiling>();
  static int64_t Blocks(const FlashWork& work) {
    return FlashBlocks(TilesOf(work.sight.queries.count, Tiling::kRows),
                       work.heads, work.sequences);
  }
  static void Run(FiberTileContext& context, const Args& args) {
    FlashForward<T, Tiling>(context, args);
  }
};

template <class T, class TilingT>
struct QueryGradients {
  using Tiling = TilingT;
  using Args = FlashBackwardArgs;
  static constexpr uint32_t kSharedBytes = QueryGradientSharedBytes<Tiling>();
  static int64_t Blocks(const FlashWork& work) {
    return FlashBlocks(TilesOf(work.sight.queries.count, Tiling::kRows),
                       work.heads, work.sequences);
  }
  static void Run(FiberTileContext& context, const Args& args) {
    FlashQueryGradients<T, Tiling>(context, args);
  }
};

template <class T, class TilingT>
struct KeyGradients {
  using Tiling = TilingT;
  using Args = FlashBackwardArgs;
  static constexpr uint32_t kSharedBytes = KeyGradientSharedBytes<Tiling>();
  static int64_t Blocks(const FlashWork& work) {
    return FlashBlocks(TilesOf(work.sight.keys.count, Tiling::kRows),
                       work.kv_heads, work.sequences);
  }
  static void Run(FiberTileContext& context, const Args& args) {
    FlashKeyGradients<T, Tiling>(context, args);
  }
};

// Of FiberThread's, which counts turns: another number in every schedule.
uint64_t NumberOf(const FiberThread& thread) {
  return thread.Now() << 16 ^
         static_cast<uint64_t>(thread.block() * thread.grid().threads +
                               thread.thread());
}

template <class Kernel>
void Body(FiberThread& thread, void* const* parameters) {
  const auto& args = *static_cast<const typename Kernel::Args*>(parameters[0]);
  auto* const tables =
      reinterpret_cast<WarpTable*>(thread.Shared() + Kernel::kSharedBytes);
  LaneState lane;
  lane.Seed(NumberOf(thread));
  const int64_t blocks = Kernel::Blocks(args.work);
  for (int64_t block = thread.block(); block < blocks;
       block += thread.grid().blocks) {
    FiberTileContext context(thread,
                             {static_cast<int>(block), Kernel::kSharedBytes},
                             tables[thread.thread() / kWarpLanes], lane);
    Kernel::Run(context, args);
    // The next one writes the shared memory that others may still read.
    thread.Sync();
  }
}

template <class Kernel>
EmulatedFlashKernel Make() {
  static_assert(Kernel::kSharedBytes % alignof(WarpTable) == 0);
  return {&Body<Kernel>,
          static_cast<int>(Kernel::kSharedBytes +
                           Kernel::Tiling::kWarps * sizeof(WarpTable))};
}

template <class T, int kHeadDim>
EmulatedFlashKernel Find(FlashKernel kernel) {
  switch (kernel) {
    case FlashKernel::kForward:
      return Make<Forward<T, ForwardTiling<kHeadDim>>>();
    case FlashKernel::kKeyGradients:
      return Make<KeyGradients<T, KeyGradientTiling<kHeadDim>>>();
    case FlashKernel::kQueryGradients:
      return Make<QueryGradients<T, QueryGradientTiling<kHeadDim>>>();
    case FlashKernel::kDelta:
    case FlashKernel::kWarpgroupForward:
      break;
  }
  return {};
}

template <class T>
EmulatedFlashKernel Find(FlashKernel kernel, int head_dim) {
  if (head_dim == 64) return Find<T, 64>(kernel);
  return head_dim == 128 ? Find<T, 128>(kernel) : EmulatedFlashKernel{};
}

}  // namespace

EmulatedFlashKernel FindEmulatedFlashKernel(FlashKernel kernel, DType dtype,
                                            int head_dim) {
  if (dtype == DType::kBF16) return Find<BFloat16>(kernel, head_dim);
  if (dtype == DType::kF16) return Find<Float16>(kernel, head_dim);
  return {};
}

}  // namespace shardproof::cuda
