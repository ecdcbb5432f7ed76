#include "attention/kernels/cuda/kernel_table.h"

#include "attention/kernels/cuda/arguments.h"
#include "attention/kernels/cuda/gradients.h"
#include "attention/kernels/cuda/warpgroup/tiling.h"

namespace shardproof::cuda {
namespace {

template <int kHeadDim>
FlashKernelEntry Entry(FlashKernel kernel, DType dtype) {
  using Forward = ForwardTiling<kHeadDim>;
  using Keys = KeyGradientTiling<kHeadDim>;
  using Queries = QueryGradientTiling<kHeadDim>;
  using Warpgroups = WarpgroupTiling<kHeadDim>;
  switch (kernel) {
    case FlashKernel::kForward:
      return {FindFlashForwardKernel(dtype, kHeadDim), Forward::kThreads,
              Forward::kRows, ForwardSharedBytes<Forward>()};
    case FlashKernel::kDelta:
      return {FindFlashDeltaKernel(dtype, kHeadDim), kDeltaThreads, kDeltaRows,
              0};
    case FlashKernel::kKeyGradients:
      return {FindFlashKeyGradientKernel(dtype, kHeadDim), Keys::kThreads,
              Keys::kRows, KeyGradientSharedBytes<Keys>()};
    case FlashKernel::kQueryGradients:
      return {FindFlashQueryGradientKernel(dtype, kHeadDim), Queries::kThreads,
              Queries::kRows, QueryGradientSharedBytes<Queries>()};
    case FlashKernel::kWarpgroupForward:
      return {FindWarpgroupForwardKernel(dtype, kHeadDim), Warpgroups::kThreads,
              Warpgroups::kRows, Warpgroups::kSharedBytes, &EncodeTileMap};
  }
  return {};
}

}  // namespace

FlashKernelEntry FindFlashKernel(FlashKernel kernel, DType dtype,
                                 int head_dim) {
  if (dtype != DType::kBF16 && dtype != DType::kF16) return {};
  if (head_dim == 64) return Entry<64>(kernel, dtype);
  if (head_dim == 128) return Entry<128>(kernel, dtype);
  return {};
}

}  // namespace shardproof::cuda
