// i8, u8, i32 and i64: modulo 2^width.
#include "collectives/backend/cuda/kernels/reducing_kernels.cuh"

namespace shardproof::cuda {

const void* FindIntegerKernel(Primitive primitive, DType dtype, ReduceOp op) {
  switch (dtype) {
    case DType::kI8:
      return ReducingKernel<int8_t>(primitive, op);
    case DType::kU8:
      return ReducingKernel<uint8_t>(primitive, op);
    case DType::kI32:
      return ReducingKernel<int32_t>(primitive, op);
    default:
      return ReducingKernel<int64_t>(primitive, op);
  }
}

}  // namespace shardproof::cuda
