// What the kernels of attention are given, and how their work is cut: plain structs that g++ and nvcc lay out alike.
//
// The contract is that of ../flash.h: natural logarithms in lse, O = 0 and lse = -inf where a query sees nothing, the
// backward pass from the final lse and delta of all keys together, gradients in f32 that are added or overwritten.
// head_dim is 64 or 128, elements are bf16 or f16.
//
//     FlashWork work = {.sequences = 1, .heads = 32, .kv_heads = 8, .heads_per_kv = 4,
//                       .sight = {.queries = {.offset = 3072, .count = 1024}, .keys = {.count = 1024}, .causal = true}};
//     SetScale(work, 1 / std::sqrt(128.0));
//     const FlashForwardArgs args = {.work = work, .q = {q, 32 * 128, ...}, ..., .lse = lse, .lse_stride = 1024};
//
// A block of a grid works on one tile of rows, one head and one sequence; blocks know nothing of one another, so no sum
// depends on an order, and the same call gives the same bits.
#ifndef SHARDPROOF_ATTENTION_KERNELS_CUDA_ARGUMENTS_H_
#define SHARDPROOF_ATTENTION_KERNELS_CUDA_ARGUMENTS_H_

#include <algorithm>
#include <cmath>
#include <cstdint>

#include "attention/kernels/cuda/sight.h"
#include "attention/kernels/cuda/tile.h"
#include "collectives/backend/cuda/kernels/world.h"

namespace shardproof::cuda {

// Element (sequence, token, head, i) is number sequence * sequence_stride + token * stride + head * head_dim + i of data.
// data is a multiple of 16 bytes, the strides are multiples of 8 elements.
template <class Void>
struct FlashTokens {
  Void* data = nullptr;
  int64_t stride = 0;
  int64_t sequence_stride = 0;

  template <class Element>
  SHARDPROOF_DEVICE Element* Row(int sequence, int head, int token,
                                 int head_dim) const {
    return static_cast<Element*>(data) + sequence * sequence_stride +
           token * stride + int64_t{head} * head_dim;
  }
};
using FlashIn = FlashTokens<const void>;
using FlashOut = FlashTokens<void>;

struct FlashWork {
  int sequences = 1;
  int heads = 0;
  int kv_heads = 0;
  int heads_per_kv = 1;
  int first_in_group = 0;  // In [0, heads_per_kv).
  Sight sight = {};
  // lg e times the scale of scores, and that scale: SetScale.
  float exponent_scale = 0;
  float scale = 0;

  constexpr int KvHeadOf(int head) const {
    return (head + first_in_group) / heads_per_kv;
  }
  // The heads of a KV head.
  SHARDPROOF_DEVICE int FirstHeadOf(int kv_head) const {
    const int first = kv_head * heads_per_kv - first_in_group;
    return first > 0 ? first : 0;
  }
  SHARDPROOF_DEVICE int LastHeadOf(int kv_head) const {
    const int last = (kv_head + 1) * heads_per_kv - first_in_group;
    return last < heads ? last : heads;
  }
};

inline constexpr double kLgE = 1.4426950408889634;
inline constexpr double kLn2 = 0.6931471805599453;

// Never 0, with which a score of -inf, of a key that is not seen, would be NaN.
inline void SetScale(FlashWork& work, double scale) {
  work.scale = static_cast<float>(scale);
  work.exponent_scale = std::max(static_cast<float>(scale * kLgE), 0x1p-126F);
}

// (sequence, head, query) is number (sequence * heads + head) * stride + query.
struct FlashForwardArgs {
  FlashWork work;
  FlashIn q, k, v;
  FlashOut o;              // Of the type of the others, or
  bool o_is_wide = false;  // f32, for a partial result that is merged.
  float* lse = nullptr;
  int64_t lse_stride = 0;
};

// delta = rowsum(dO * O).
struct FlashDeltaArgs {
  FlashWork work;
  FlashIn d_o;
  FlashIn o;
  bool o_is_wide = false;
  float* delta = nullptr;
  int64_t delta_stride = 0;
};

struct FlashBackwardArgs {
  FlashWork work;
  FlashIn q, k, v, d_o;
  const float* lse = nullptr;
  const float* delta = nullptr;
  int64_t lse_stride = 0, delta_stride = 0;
  FlashOut dq, dk, dv;     // f32.
  bool overwrite = false;  // Instead of adding.
};

// Null where the kernels serve it; else why not.
inline const char* WhyNotFlash(const FlashWork& work) {
  if (const char* reason = WhyNotSight(work.sight)) return reason;
  if (work.sequences < 0 || work.heads < 0 || work.kv_heads < 0 ||
      work.heads_per_kv < 1 || work.first_in_group < 0 ||
      work.first_in_group >= work.heads_per_kv) {
    return "sizes that are negative, or a head outside of its group";
  }
  if (work.heads > 0 && work.KvHeadOf(work.heads - 1) >= work.kv_heads) {
    return "heads that have no KV head";
  }
  return !(work.scale >= 0) ? "a negative scale" : nullptr;
}
template <class Void>
const char* WhyNotFlash(const FlashTokens<Void>& tokens) {
  if (reinterpret_cast<uintptr_t>(tokens.data) % kChunkBytes != 0) {
    return "tokens that are not at a multiple of 16 bytes";
  }
  return tokens.stride % kChunkElements != 0 ||
                 tokens.sequence_stride % kChunkElements != 0
             ? "strides that are no multiples of 8 elements"
             : nullptr;
}

// How a kernel cuts its work: a block has kWarps warps, each of kRowTiles x 16 rows, and goes over columns by kColumns
// at a time. Rows are queries in the forward kernel and that of dQ, keys in that of dK and dV; columns are the others.
template <int kHeadDimT, int kRowTilesT, int kColumnsT>
struct FlashTiling {
  static constexpr int kHeadDim = kHeadDimT;
  static constexpr int kWarps = 4;
  static constexpr int kThreads = kWarps * kWarpLanes;
  static constexpr int kRowTiles = kRowTilesT;
  static constexpr int kRowsOfAWarp = kRowTiles * kMmaRows;
  static constexpr int kRows = kWarps * kRowsOfAWarp;
  static constexpr int kColumns = kColumnsT;
  static constexpr uint32_t kRowsBytes = TileBytes<kHeadDim>(kRows);
  static constexpr uint32_t kColumnsBytes = TileBytes<kHeadDim>(kColumns);
};

template <int kHeadDim>
using ForwardTiling = FlashTiling<kHeadDim, kHeadDim == 64 ? 2 : 1, 64>;
template <int kHeadDim>
using QueryGradientTiling = FlashTiling<kHeadDim, 2, 32>;
template <int kHeadDim>
using KeyGradientTiling = FlashTiling<kHeadDim, kHeadDim == 64 ? 2 : 1, 32>;

// Bytes of dynamic shared memory.
template <class Tiling>
constexpr uint32_t ForwardSharedBytes() {
  return Tiling::kRowsBytes + 2 * Tiling::kColumnsBytes;  // Q, K and V.
}
template <class Tiling>
constexpr uint32_t QueryGradientSharedBytes() {
  // Q and dO; K and V, of two steps.
  return 2 * Tiling::kRowsBytes + 4 * Tiling::kColumnsBytes;
}
template <class Tiling>
constexpr uint32_t KeyGradientSharedBytes() {
  // K and V; Q, dO, lse and delta, of two steps.
  return 2 * Tiling::kRowsBytes + 4 * Tiling::kColumnsBytes +
         4 * Tiling::kColumns * static_cast<uint32_t>(sizeof(float));
}

// What a block works on: tile of rows, head, sequence.
struct FlashPart {
  int tile = 0;
  int head = 0;
  int sequence = 0;
};
constexpr int TilesOf(int count, int rows) { return (count + rows - 1) / rows; }
constexpr int64_t FlashBlocks(int tiles, int heads, int sequences) {
  return int64_t{tiles} * heads * sequences;
}
// Blocks begin in the order of their numbers. Where it is causal, the last tiles of queries have the most to do, and the
// first ones of keys: those begin first.
enum class TileOrder : uint8_t { kFirstTileFirst, kLastTileFirst };
SHARDPROOF_DEVICE FlashPart FlashPartOf(int block, int tiles, int heads,
                                        TileOrder order) {
  const int tile = block % tiles;
  return {order == TileOrder::kLastTileFirst ? tiles - 1 - tile : tile,
          block / tiles % heads, block / tiles / heads};
}

}  // namespace shardproof::cuda

#endif  // SHARDPROOF_ATTENTION_KERNELS_CUDA_ARGUMENTS_H_
