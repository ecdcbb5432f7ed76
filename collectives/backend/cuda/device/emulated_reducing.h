// The instantiations of the reducing kernels for emulated GPUs, for the files that make them.
#ifndef SHARDPROOF_COLLECTIVES_BACKEND_CUDA_DEVICE_EMULATED_REDUCING_H_
#define SHARDPROOF_COLLECTIVES_BACKEND_CUDA_DEVICE_EMULATED_REDUCING_H_

#include "collectives/backend/cuda/device/emulated_kernels.h"
#include "collectives/backend/cuda/kernels/reducing.h"

namespace shardproof::cuda {

template <class T, ReduceOp kOp>
EmulatedKernel EmulatedReducing(Primitive primitive) {
  switch (primitive) {
    case Primitive::kAllReduceOneShot:
      return &AllReduceOneShot<T, kOp, EmulatedRounds>;
    case Primitive::kAllReduceTwoShot:
      return &AllReduceTwoShot<T, kOp, EmulatedRounds>;
    case Primitive::kReduceScatter:
      return &ReduceScatter<T, kOp, EmulatedRounds>;
    case Primitive::kReduce:
      return &Reduce<T, kOp, EmulatedRounds>;
    default:
      return nullptr;
  }
}

template <class T>
EmulatedKernel EmulatedReducing(Primitive primitive, ReduceOp op) {
  switch (op) {
    case ReduceOp::kSum:
      return EmulatedReducing<T, ReduceOp::kSum>(primitive);
    case ReduceOp::kProd:
      return EmulatedReducing<T, ReduceOp::kProd>(primitive);
    case ReduceOp::kMin:
      return EmulatedReducing<T, ReduceOp::kMin>(primitive);
    case ReduceOp::kMax:
      return EmulatedReducing<T, ReduceOp::kMax>(primitive);
    case ReduceOp::kAvg:
      return EmulatedReducing<T, ReduceOp::kAvg>(primitive);
    case ReduceOp::kPremulSum:
      return EmulatedReducing<T, ReduceOp::kPremulSum>(primitive);
  }
  return nullptr;
}

}  // namespace shardproof::cuda

#endif  // SHARDPROOF_COLLECTIVES_BACKEND_CUDA_DEVICE_EMULATED_REDUCING_H_
