// The kernels of attention for GPUs, by name.
//
//     const FlashKernelEntry entry = FindFlashKernel(FlashKernel::kForward, DType::kBF16, 128);
//     cudaFuncSetAttribute(entry.kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, entry.shared_bytes);
//     void* parameters[] = {&args};                                            // FlashForwardArgs
//     cudaLaunchKernel(entry.kernel, FlashBlocks(TilesOf(queries, entry.rows), heads, sequences), entry.threads,
//                      parameters, entry.shared_bytes, stream);
//
// One parameter each (arguments.h):
//
//     kForward          FlashForwardArgs     a block for each tile of queries, head and sequence
//     kWarpgroupForward WarpgroupForwardArgs the same, on compute capability 9.x alone (warpgroup/tiling.h)
//     kDelta            FlashDeltaArgs       a block for each tile of queries, head and sequence
//     kKeyGradients     FlashBackwardArgs    dK and dV: a block for each tile of keys, KV head and sequence
//     kQueryGradients   FlashBackwardArgs    dQ: a block for each tile of queries, head and sequence
//
// The gradients come after kDelta, in either order. Nothing is launched where there are no blocks.
#ifndef SHARDPROOF_ATTENTION_KERNELS_CUDA_KERNEL_TABLE_H_
#define SHARDPROOF_ATTENTION_KERNELS_CUDA_KERNEL_TABLE_H_

#include <cstdint>

#include "reference/dtype.h"

namespace shardproof::cuda {

enum class FlashKernel : uint8_t {
  kForward,
  kDelta,
  kKeyGradients,
  kQueryGradients,
  kWarpgroupForward,
};
inline constexpr int kFlashKernels = 5;

struct TileMapSpec;
struct TileMap;
// Makes the map that a kernel is given of a tensor (warpgroup/tile_map.h). Null where it is done; else why not.
using TileMapEncoder = const char* (*)(const TileMapSpec& spec, TileMap& map);

struct FlashKernelEntry {
  const void* kernel = nullptr;
  int threads = 0;
  int rows = 0;  // Of a block.
  uint32_t shared_bytes = 0;
  TileMapEncoder encode = nullptr;  // Of kWarpgroupForward.
};

// Of bf16 or f16, head_dim 64 or 128; no kernel for others.
FlashKernelEntry FindFlashKernel(FlashKernel kernel, DType dtype, int head_dim);

// The parts of it, each in a file of its own.
const void* FindFlashForwardKernel(DType dtype, int head_dim);
const void* FindFlashDeltaKernel(DType dtype, int head_dim);
const void* FindFlashKeyGradientKernel(DType dtype, int head_dim);
const void* FindFlashQueryGradientKernel(DType dtype, int head_dim);
const void* FindWarpgroupForwardKernel(DType dtype, int head_dim);
// cuTensorMapEncodeTiled, of the driver.
const char* EncodeTileMap(const TileMapSpec& spec, TileMap& map);

}  // namespace shardproof::cuda

#endif  // SHARDPROOF_ATTENTION_KERNELS_CUDA_KERNEL_TABLE_H_
