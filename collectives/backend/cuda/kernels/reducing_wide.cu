// f64 and f32.
#include "collectives/backend/cuda/kernels/reducing_kernels.cuh"

namespace shardproof::cuda {

const void* FindWideKernel(Primitive primitive, DType dtype, ReduceOp op) {
  return dtype == DType::kF64 ? ReducingKernel<double>(primitive, op)
                              : ReducingKernel<float>(primitive, op);
}

}  // namespace shardproof::cuda
