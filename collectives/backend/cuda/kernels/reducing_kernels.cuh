// The entry points of the reducing kernels, for the .cu files that instantiate them: each for some types, so that they
// compile side by side.
#ifndef SHARDPROOF_COLLECTIVES_BACKEND_CUDA_KERNELS_REDUCING_KERNELS_CUH_
#define SHARDPROOF_COLLECTIVES_BACKEND_CUDA_KERNELS_REDUCING_KERNELS_CUH_

#include "collectives/backend/cuda/kernels/cuda_context.cuh"
#include "collectives/backend/cuda/kernels/entry.cuh"
#include "collectives/backend/cuda/kernels/kernel_table.h"
#include "collectives/backend/cuda/kernels/reducing.h"
#include "reference/reduce_op.h"

namespace shardproof::cuda {

template <class T, ReduceOp kOp>
__global__ void __launch_bounds__(kMaxThreads, 1)
    AllReduceOneShotKernel(__grid_constant__ const World world,
                           __grid_constant__ const CollectiveArgs args,
                           __grid_constant__ const Residents residents) {
  RunRounds(world, residents, [&](auto& rounds) {
    return AllReduceOneShot<T, kOp>(rounds, args);
  });
}

template <class T, ReduceOp kOp>
__global__ void __launch_bounds__(kMaxThreads, 1)
    AllReduceTwoShotKernel(__grid_constant__ const World world,
                           __grid_constant__ const CollectiveArgs args,
                           __grid_constant__ const Residents residents) {
  RunRounds(world, residents, [&](auto& rounds) {
    return AllReduceTwoShot<T, kOp>(rounds, args);
  });
}

template <class T, ReduceOp kOp>
__global__ void __launch_bounds__(kMaxThreads, 1)
    ReduceScatterKernel(__grid_constant__ const World world,
                        __grid_constant__ const CollectiveArgs args,
                        __grid_constant__ const Residents residents) {
  RunRounds(world, residents,
            [&](auto& rounds) { return ReduceScatter<T, kOp>(rounds, args); });
}

template <class T, ReduceOp kOp>
__global__ void __launch_bounds__(kMaxThreads, 1)
    ReduceKernel(__grid_constant__ const World world,
                 __grid_constant__ const CollectiveArgs args,
                 __grid_constant__ const Residents residents) {
  RunRounds(world, residents,
            [&](auto& rounds) { return Reduce<T, kOp>(rounds, args); });
}

template <class T, ReduceOp kOp>
const void* ReducingKernel(Primitive primitive) {
  const auto address = [](auto* kernel) {
    return reinterpret_cast<const void*>(kernel);
  };
  switch (primitive) {
    case Primitive::kAllReduceOneShot:
      return address(&AllReduceOneShotKernel<T, kOp>);
    case Primitive::kAllReduceTwoShot:
      return address(&AllReduceTwoShotKernel<T, kOp>);
    case Primitive::kReduceScatter:
      return address(&ReduceScatterKernel<T, kOp>);
    case Primitive::kReduce:
      return address(&ReduceKernel<T, kOp>);
    default:
      return nullptr;
  }
}

template <class T>
const void* ReducingKernel(Primitive primitive, ReduceOp op) {
  switch (op) {
    case ReduceOp::kProd:
      return ReducingKernel<T, ReduceOp::kProd>(primitive);
    case ReduceOp::kMin:
      return ReducingKernel<T, ReduceOp::kMin>(primitive);
    case ReduceOp::kMax:
      return ReducingKernel<T, ReduceOp::kMax>(primitive);
    case ReduceOp::kAvg:
      return ReducingKernel<T, ReduceOp::kAvg>(primitive);
    case ReduceOp::kPremulSum:
      return ReducingKernel<T, ReduceOp::kPremulSum>(primitive);
    case ReduceOp::kSum:
      return ReducingKernel<T, ReduceOp::kSum>(primitive);
  }
  return nullptr;
}

}  // namespace shardproof::cuda

#endif  // SHARDPROOF_COLLECTIVES_BACKEND_CUDA_KERNELS_REDUCING_KERNELS_CUH_
