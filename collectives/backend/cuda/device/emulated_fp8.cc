// e4m3 and e5m2.
#include "collectives/backend/cuda/device/emulated_reducing.h"

namespace shardproof::cuda {

EmulatedKernel FindEmulatedFp8(Primitive primitive, DType dtype, ReduceOp op) {
  return dtype == DType::kE4M3 ? EmulatedReducing<Float8E4M3>(primitive, op)
                               : EmulatedReducing<Float8E5M2>(primitive, op);
}

}  // namespace shardproof::cuda
