// i8, u8, i32 and i64.
#include "collectives/backend/cuda/device/emulated_reducing.h"

namespace shardproof::cuda {

EmulatedKernel FindEmulatedInteger(Primitive primitive, DType dtype,
                                   ReduceOp op) {
  switch (dtype) {
    case DType::kI8:
      return EmulatedReducing<int8_t>(primitive, op);
    case DType::kU8:
      return EmulatedReducing<uint8_t>(primitive, op);
    case DType::kI32:
      return EmulatedReducing<int32_t>(primitive, op);
    default:
      return EmulatedReducing<int64_t>(primitive, op);
  }
}

}  // namespace shardproof::cuda
