// The kernels of the cuda backend by name.
//
//     const void* const kernel = FindKernel(Primitive::kAllReduceTwoShot, DType::kBF16, ReduceOp::kSum);
//     void* parameters[] = {&world, &args, &residents};
//     cudaLaunchCooperativeKernel(kernel, {blocks, ranks}, threads, parameters, 0, stream);
//
// Every kernel is  void(World, CollectiveArgs, Residents), and entry.cuh says what its grid is. At most kMaxBlocks
// blocks of at most kMaxThreads threads; the number of blocks is the same on all ranks and in all calls of a world.
#ifndef SHARDPROOF_COLLECTIVES_BACKEND_CUDA_KERNELS_KERNEL_TABLE_H_
#define SHARDPROOF_COLLECTIVES_BACKEND_CUDA_KERNELS_KERNEL_TABLE_H_

#include "collectives/backend/cuda/kernels/primitive.h"
#include "reference/dtype.h"
#include "reference/reduce_op.h"

namespace shardproof::cuda {

inline constexpr int kMaxThreads = 512;

// Null if there is none. What only moves serves every type and operation.
const void* FindKernel(Primitive primitive, DType dtype, ReduceOp op);

// The parts of it, each in a file of its own.
const void* FindMovingKernel(Primitive primitive);
const void* FindWideKernel(Primitive primitive, DType dtype, ReduceOp op);
const void* FindHalfKernel(Primitive primitive, DType dtype, ReduceOp op);
const void* FindFp8Kernel(Primitive primitive, DType dtype, ReduceOp op);
const void* FindIntegerKernel(Primitive primitive, DType dtype, ReduceOp op);

}  // namespace shardproof::cuda

#endif  // SHARDPROOF_COLLECTIVES_BACKEND_CUDA_KERNELS_KERNEL_TABLE_H_
