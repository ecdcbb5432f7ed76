// What every kernel does around its body.
//
//     grid = (blocks of a rank, ranks of this GPU), rank = first_rank + blockIdx.y
//
// With one rank on each GPU the grid is (blocks, 1) and first_rank the rank; with all virtual ranks of one GPU it is
// (blocks, ranks) and 0, in one cooperative launch: blocks that wait for each other must all be on the GPU, and that
// launch puts them there together or refuses.
#ifndef SHARDPROOF_COLLECTIVES_BACKEND_CUDA_KERNELS_ENTRY_CUH_
#define SHARDPROOF_COLLECTIVES_BACKEND_CUDA_KERNELS_ENTRY_CUH_

#include "collectives/backend/cuda/kernels/cuda_context.cuh"
#include "collectives/backend/cuda/kernels/kernel_table.h"
#include "collectives/backend/cuda/kernels/rounds.h"
#include "collectives/backend/cuda/kernels/world.h"

namespace shardproof::cuda {

template <class Body>
__device__ __forceinline__ void RunRounds(const World& world, int first_rank,
                                          const Body& body) {
  CudaContext context(first_rank + static_cast<int>(blockIdx.y));
  Rounds<CudaContext> rounds(context, world);
  if (rounds.Begin() && body(rounds)) rounds.End();
}

}  // namespace shardproof::cuda

#endif  // SHARDPROOF_COLLECTIVES_BACKEND_CUDA_KERNELS_ENTRY_CUH_
