#include "collectives/backend/cuda/kernels/kernel_table.h"

namespace shardproof::cuda {

const void* FindKernel(Primitive primitive, DType dtype, ReduceOp op) {
  if (!Reduces(primitive)) return FindMovingKernel(primitive);
  switch (dtype) {
    case DType::kF64:
    case DType::kF32:
      return FindWideKernel(primitive, dtype, op);
    case DType::kBF16:
    case DType::kF16:
      return FindHalfKernel(primitive, dtype, op);
    case DType::kE4M3:
    case DType::kE5M2:
      return FindFp8Kernel(primitive, dtype, op);
    case DType::kI8:
    case DType::kU8:
    case DType::kI32:
    case DType::kI64:
      return FindIntegerKernel(primitive, dtype, op);
  }
  return nullptr;
}

}  // namespace shardproof::cuda
