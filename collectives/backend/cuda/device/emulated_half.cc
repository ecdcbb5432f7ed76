// bf16 and f16.
#include "collectives/backend/cuda/device/emulated_reducing.h"

namespace shardproof::cuda {

EmulatedKernel FindEmulatedHalf(Primitive primitive, DType dtype, ReduceOp op) {
  return dtype == DType::kBF16 ? EmulatedReducing<BFloat16>(primitive, op)
                               : EmulatedReducing<Float16>(primitive, op);
}

}  // namespace shardproof::cuda
