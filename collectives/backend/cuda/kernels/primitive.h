// The collectives that have kernels.
#ifndef SHARDPROOF_COLLECTIVES_BACKEND_CUDA_KERNELS_PRIMITIVE_H_
#define SHARDPROOF_COLLECTIVES_BACKEND_CUDA_KERNELS_PRIMITIVE_H_

#include <cstdint>

namespace shardproof::cuda {

enum class Primitive : uint8_t {
  kAllReduceOneShot,
  kAllReduceTwoShot,
  kReduceScatter,
  kReduce,
  kAllGather,
  kBroadcast,
  kAllToAll,
  kSendRecv,
  kBarrier,
};

inline constexpr Primitive kAllPrimitives[] = {
    Primitive::kAllReduceOneShot, Primitive::kAllReduceTwoShot,
    Primitive::kReduceScatter,    Primitive::kReduce,
    Primitive::kAllGather,        Primitive::kBroadcast,
    Primitive::kAllToAll,         Primitive::kSendRecv,
    Primitive::kBarrier};

constexpr bool Reduces(Primitive primitive) {
  return primitive <= Primitive::kReduce;
}

}  // namespace shardproof::cuda

#endif  // SHARDPROOF_COLLECTIVES_BACKEND_CUDA_KERNELS_PRIMITIVE_H_
