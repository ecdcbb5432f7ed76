// f64 and f32.
#include "collectives/backend/cuda/device/emulated_reducing.h"

namespace shardproof::cuda {

EmulatedKernel FindEmulatedWide(Primitive primitive, DType dtype, ReduceOp op) {
  return dtype == DType::kF64 ? EmulatedReducing<double>(primitive, op)
                              : EmulatedReducing<float>(primitive, op);
}

}  // namespace shardproof::cuda
