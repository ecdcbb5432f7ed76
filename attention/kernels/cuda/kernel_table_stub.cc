// The entry points of the kernels where there is no CUDA: there are none.
#include "attention/kernels/cuda/kernel_table.h"

namespace shardproof::cuda {

const void* FindFlashForwardKernel(DType /*dtype*/, int /*head_dim*/) {
  return nullptr;
}
const void* FindFlashDeltaKernel(DType /*dtype*/, int /*head_dim*/) {
  return nullptr;
}
const void* FindFlashKeyGradientKernel(DType /*dtype*/, int /*head_dim*/) {
  return nullptr;
}
const void* FindFlashQueryGradientKernel(DType /*dtype*/, int /*head_dim*/) {
  return nullptr;
}

const void* FindWarpgroupForwardKernel(DType /*dtype*/, int /*head_dim*/) {
  return nullptr;
}
const char* EncodeTileMap(const TileMapSpec& /*spec*/, TileMap& /*map*/) {
  return "there is no CUDA";
}

}  // namespace shardproof::cuda
