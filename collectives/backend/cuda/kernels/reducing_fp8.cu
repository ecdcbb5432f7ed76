// e4m3 and e5m2, accumulated in f32. The conversions are those of reference/dtype.h: the instructions of sm_89 and
// later saturate.
#include "collectives/backend/cuda/kernels/reducing_kernels.cuh"

namespace shardproof::cuda {

const void* FindFp8Kernel(Primitive primitive, DType dtype, ReduceOp op) {
  return dtype == DType::kE4M3 ? ReducingKernel<Float8E4M3>(primitive, op)
                               : ReducingKernel<Float8E5M2>(primitive, op);
}

}  // namespace shardproof::cuda
