// bf16 and f16, accumulated in f32.
#include "collectives/backend/cuda/kernels/reducing_kernels.cuh"

namespace shardproof::cuda {

const void* FindHalfKernel(Primitive primitive, DType dtype, ReduceOp op) {
  return dtype == DType::kBF16 ? ReducingKernel<BFloat16>(primitive, op)
                               : ReducingKernel<Float16>(primitive, op);
}

}  // namespace shardproof::cuda
