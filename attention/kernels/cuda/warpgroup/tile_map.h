// Tensors as the tensor memory accelerator (TMA) is told of them: a box of [rows, 64 elements] of one head is a request,
// which lands in shared memory with 128-byte swizzle (wgmma.h), zeros where the tensor has no such token.
//
//     TileMap map;
//     const TileMapSpec spec = SpecOf(args.k, DType::kBF16, kv_heads, keys, sequences, 128, tile_keys);
//     if (const char* why = encode(spec, map)) ...        // cuTensorMapEncodeTiled; in tests, a copy of the spec
//
// Rejected: cp.async.bulk of rows, which needs no map, but swizzles nothing, so that it would be a copy for each chunk of 16
// bytes; cp.async by the producer, whose writes wgmma sees only behind a proxy fence of the thread that waited for them.
#ifndef SHARDPROOF_ATTENTION_KERNELS_CUDA_WARPGROUP_TILE_MAP_H_
#define SHARDPROOF_ATTENTION_KERNELS_CUDA_WARPGROUP_TILE_MAP_H_

#include <cstddef>
#include <cstdint>

#include "attention/kernels/cuda/arguments.h"
#include "attention/kernels/cuda/warpgroup/wgmma.h"
#include "reference/dtype.h"

namespace shardproof::cuda {

// A panel of a tile: so many columns of all its rows.
inline constexpr int kPanelColumns = kPanelLineBytes / 2;
inline constexpr int kMapDimensions = 4;

// CUtensorMap, which CUDA 13 aligns so.
struct alignas(128) TileMap {
  std::byte opaque[128];
};

// Dimensions: element, head, token, sequence. `strides` are in bytes, of all but the first.
struct TileMapSpec {
  const void* data = nullptr;
  DType dtype = DType::kBF16;
  int64_t sizes[kMapDimensions] = {};
  int64_t strides[kMapDimensions - 1] = {};
  int32_t box[kMapDimensions] = {};
};

// Boxes of `rows` tokens.
inline TileMapSpec SpecOf(const FlashIn& tokens, DType dtype, int heads,
                          int count, int sequences, int head_dim, int rows) {
  constexpr int64_t kBytes = 2;
  // One sequence has no distance to the next.
  const int64_t sequence_stride =
      sequences == 1 ? tokens.stride * count : tokens.sequence_stride;
  return {tokens.data,
          dtype,
          {head_dim, heads, count, sequences},
          {head_dim * kBytes, tokens.stride * kBytes, sequence_stride * kBytes},
          {kPanelColumns, 1, rows, 1}};
}

// Null where it is one that cuTensorMapEncodeTiled takes; else why not.
inline const char* WhyNotTileMap(const TileMapSpec& spec) {
  if (reinterpret_cast<uintptr_t>(spec.data) % 16 != 0) {
    return "tokens that are not at a multiple of 16 bytes";
  }
  for (const int64_t size : spec.sizes) {
    if (size < 1 || size > int64_t{1} << 32) return "no tokens, or 2^32";
  }
  for (int i = 0; i < kMapDimensions - 1; ++i) {
    const int64_t stride = spec.strides[i];
    if (stride % 16 != 0 || stride >= int64_t{1} << 40) {
      return "strides that are no multiples of 8 elements, or of 2^40 bytes";
    }
    // What the encoder asserts.
    if (stride < spec.sizes[i]) {
      return "sequences or tokens that lie within one another";
    }
  }
  return nullptr;
}

}  // namespace shardproof::cuda

#endif  // SHARDPROOF_ATTENTION_KERNELS_CUDA_WARPGROUP_TILE_MAP_H_
