// all_gather, broadcast, all_to_all, send_recv and barrier, for every type.
#include "collectives/backend/cuda/kernels/entry.cuh"
#include "collectives/backend/cuda/kernels/kernel_table.h"
#include "collectives/backend/cuda/kernels/moving.h"

namespace shardproof::cuda {
namespace {

template <Primitive kPrimitive>
__global__ void __launch_bounds__(kMaxThreads, 1)
    MovingKernel(__grid_constant__ const World world,
                 __grid_constant__ const CollectiveArgs args,
                 __grid_constant__ const Residents residents) {
  RunRounds(world, residents, [&](auto& rounds) {
    if constexpr (kPrimitive == Primitive::kAllGather) {
      return AllGather(rounds, args);
    } else if constexpr (kPrimitive == Primitive::kBroadcast) {
      return Broadcast(rounds, args);
    } else if constexpr (kPrimitive == Primitive::kAllToAll) {
      return AllToAll(rounds, args);
    } else if constexpr (kPrimitive == Primitive::kSendRecv) {
      return SendRecv(rounds, args);
    } else {
      return Barrier(rounds);
    }
  });
}

template <Primitive kPrimitive>
const void* Address() {
  return reinterpret_cast<const void*>(&MovingKernel<kPrimitive>);
}

}  // namespace

const void* FindMovingKernel(Primitive primitive) {
  switch (primitive) {
    case Primitive::kAllGather:
      return Address<Primitive::kAllGather>();
    case Primitive::kBroadcast:
      return Address<Primitive::kBroadcast>();
    case Primitive::kAllToAll:
      return Address<Primitive::kAllToAll>();
    case Primitive::kSendRecv:
      return Address<Primitive::kSendRecv>();
    case Primitive::kBarrier:
      return Address<Primitive::kBarrier>();
    default:
      return nullptr;
  }
}

}  // namespace shardproof::cuda
