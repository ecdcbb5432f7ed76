// The kernels of emulated GPUs by name: what ../kernels/kernel_table.h is for CUDA.
#ifndef SHARDPROOF_COLLECTIVES_BACKEND_CUDA_DEVICE_EMULATED_KERNELS_H_
#define SHARDPROOF_COLLECTIVES_BACKEND_CUDA_DEVICE_EMULATED_KERNELS_H_

#include "collectives/backend/cuda/device/emulated_context.h"
#include "collectives/backend/cuda/kernels/primitive.h"
#include "collectives/backend/cuda/kernels/world.h"
#include "reference/dtype.h"
#include "reference/reduce_op.h"

namespace shardproof::cuda {

// Between Begin and End of the rounds; false after a failure.
using EmulatedKernel = bool (*)(EmulatedRounds& rounds,
                                const CollectiveArgs& args);

// Null if there is none.
EmulatedKernel FindEmulatedKernel(Primitive primitive, DType dtype,
                                  ReduceOp op);

// The reducing ones, some types in each file.
EmulatedKernel FindEmulatedWide(Primitive primitive, DType dtype, ReduceOp op);
EmulatedKernel FindEmulatedHalf(Primitive primitive, DType dtype, ReduceOp op);
EmulatedKernel FindEmulatedFp8(Primitive primitive, DType dtype, ReduceOp op);
EmulatedKernel FindEmulatedInteger(Primitive primitive, DType dtype,
                                   ReduceOp op);

}  // namespace shardproof::cuda

#endif  // SHARDPROOF_COLLECTIVES_BACKEND_CUDA_DEVICE_EMULATED_KERNELS_H_
