#include "collectives/backend/cuda/device/emulated_kernels.h"

#include "collectives/backend/cuda/kernels/moving.h"

namespace shardproof::cuda {
namespace {

bool RunBarrier(EmulatedRounds& rounds, const CollectiveArgs& /*args*/) {
  return Barrier(rounds);
}

EmulatedKernel FindMoving(Primitive primitive) {
  switch (primitive) {
    case Primitive::kAllGather:
      return &AllGather<EmulatedRounds>;
    case Primitive::kBroadcast:
      return &Broadcast<EmulatedRounds>;
    case Primitive::kAllToAll:
      return &AllToAll<EmulatedRounds>;
    case Primitive::kSendRecv:
      return &SendRecv<EmulatedRounds>;
    case Primitive::kBarrier:
      return &RunBarrier;
    default:
      return nullptr;
  }
}

}  // namespace

EmulatedKernel FindEmulatedKernel(Primitive primitive, DType dtype,
                                  ReduceOp op) {
  if (!Reduces(primitive)) return FindMoving(primitive);
  switch (dtype) {
    case DType::kF64:
    case DType::kF32:
      return FindEmulatedWide(primitive, dtype, op);
    case DType::kBF16:
    case DType::kF16:
      return FindEmulatedHalf(primitive, dtype, op);
    case DType::kE4M3:
    case DType::kE5M2:
      return FindEmulatedFp8(primitive, dtype, op);
    case DType::kI8:
    case DType::kU8:
    case DType::kI32:
    case DType::kI64:
      return FindEmulatedInteger(primitive, dtype, op);
  }
  return nullptr;
}

}  // namespace shardproof::cuda
