// What every kernel does around its body.
//
//     grid = (blocks of a rank, ranks of this GPU), rank = residents.ranks[blockIdx.y]
//
// One cooperative launch for all ranks of a GPU: blocks that wait for each other must all be on the GPU, and that launch
// puts them there together or refuses. Which ranks those are is a list, since a group that was split from another may
// have any of them, in any order.
#ifndef SHARDPROOF_COLLECTIVES_BACKEND_CUDA_KERNELS_ENTRY_CUH_
#define SHARDPROOF_COLLECTIVES_BACKEND_CUDA_KERNELS_ENTRY_CUH_

#include "collectives/backend/cuda/kernels/cuda_context.cuh"
#include "collectives/backend/cuda/kernels/kernel_table.h"
#include "collectives/backend/cuda/kernels/rounds.h"
#include "collectives/backend/cuda/kernels/world.h"

namespace shardproof::cuda {

template <class Body>
__device__ __forceinline__ void RunRounds(const World& world,
                                          const Residents& residents,
                                          const Body& body) {
  CudaContext context(residents.ranks[blockIdx.y]);
  Rounds<CudaContext> rounds(context, world);
  if (rounds.Begin() && body(rounds)) rounds.End();
}

}  // namespace shardproof::cuda

#endif  // SHARDPROOF_COLLECTIVES_BACKEND_CUDA_KERNELS_ENTRY_CUH_
