#include "collectives/backend/nccl/nccl_types.h"

#include <cstdlib>

namespace shardproof {
namespace {

nccl::DataType OwnType(DType dtype) {
  switch (dtype) {
    case DType::kF64:
      return nccl::DataType::kFloat64;
    case DType::kF32:
      return nccl::DataType::kFloat32;
    case DType::kBF16:
      return nccl::DataType::kBfloat16;
    case DType::kF16:
      return nccl::DataType::kFloat16;
    case DType::kE4M3:
      return nccl::DataType::kFloat8E4M3;
    case DType::kE5M2:
      return nccl::DataType::kFloat8E5M2;
    case DType::kI8:
      return nccl::DataType::kInt8;
    case DType::kU8:
      return nccl::DataType::kUint8;
    case DType::kI32:
      return nccl::DataType::kInt32;
    case DType::kI64:
      return nccl::DataType::kInt64;
  }
  std::abort();  // Not a DType: memory is damaged.
}

bool Lacks(const NcclLibrary& library, DType dtype) {
  return IsFloat(dtype) && SizeOf(dtype) == 1 &&
         !library.Has(NcclFeature::kFp8);
}

}  // namespace

nccl::DataType NcclMovementType(const NcclLibrary& library, DType dtype) {
  return Lacks(library, dtype) ? nccl::DataType::kUint8 : OwnType(dtype);
}

StatusOr<nccl::DataType> NcclReductionType(const NcclLibrary& library,
                                           DType dtype) {
  if (Lacks(library, dtype)) {
    return Unsupported("NCCL {} cannot reduce {}: 2.24 was the first with fp8",
                       NcclVersionText(library.version()), Name(dtype));
  }
  return OwnType(dtype);
}

nccl::RedOp NcclReductionOp(ReduceOp op) {
  switch (op) {
    case ReduceOp::kSum:
      return nccl::RedOp::kSum;
    case ReduceOp::kProd:
      return nccl::RedOp::kProd;
    case ReduceOp::kMin:
      return nccl::RedOp::kMin;
    case ReduceOp::kMax:
      return nccl::RedOp::kMax;
    case ReduceOp::kAvg:
      return nccl::RedOp::kAvg;
    case ReduceOp::kPremulSum:
      break;
  }
  std::abort();  // The caller makes that one.
}

}  // namespace shardproof
