// What the ranks of a group ask of Backend::Native, as one call of a collective kernel.
#ifndef SHARDPROOF_COLLECTIVES_BACKEND_CUDA_DEVICE_KERNEL_REQUEST_H_
#define SHARDPROOF_COLLECTIVES_BACKEND_CUDA_DEVICE_KERNEL_REQUEST_H_

#include <cstdint>
#include <span>

#include "collectives/backend.h"
#include "collectives/backend/cuda/device/gpu.h"
#include "collectives/backend/cuda/kernels/primitive.h"
#include "collectives/backend/cuda/kernels/world.h"
#include "reference/dtype.h"
#include "reference/reduce_op.h"
#include "reference/status.h"

namespace shardproof::cuda {

struct KernelRequest {
  Primitive primitive = Primitive::kBarrier;
  DType dtype = DType::kU8;
  ReduceOp op = ReduceOp::kSum;
  CollectiveArgs args;
};

// requests[r] is what rank r asks; its counts mean what they mean for RunMpiNative. "all_reduce" is the one-shot kernel
// up to `one_shot_bytes` of the whole and the two-shot one above; "all_reduce_one_shot" and "all_reduce_two_shot" name
// one. 1 to kMaxRanks requests.
//
// kUnsupported: no kernel for the primitive (gather, scatter and the v forms have none), too many ranks, or a buffer of
// ordinary memory. kInvalidArgument: ranks that do not ask the same, counts, roots and partners that cannot be, or a
// buffer that is not aligned to its elements. Nothing is done in either case, and all ranks are to get the answer.
StatusOr<KernelRequest> ToKernelRequest(std::span<const NativeRequest> requests,
                                        const GpuSystem& gpus,
                                        int64_t one_shot_bytes);

}  // namespace shardproof::cuda

#endif  // SHARDPROOF_COLLECTIVES_BACKEND_CUDA_DEVICE_KERNEL_REQUEST_H_
