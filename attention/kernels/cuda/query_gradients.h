// dQ: a block has a tile of queries of one head and goes over the keys that they see.
//
//     K and V of a step have come | copy those of the next one | S = Q K^T | dP = dO V^T | dS | dQ += dS K
//
// Q and dO stay in shared memory; K and V have two places, used in turn, so that one barrier a step is enough: it comes
// after the step before the last one was read, and before its place is written again.
#ifndef SHARDPROOF_ATTENTION_KERNELS_CUDA_QUERY_GRADIENTS_H_
#define SHARDPROOF_ATTENTION_KERNELS_CUDA_QUERY_GRADIENTS_H_

#include <cstdint>

#include "attention/kernels/cuda/gradients.h"
#include "attention/kernels/cuda/mask.h"

namespace shardproof::cuda {

template <class T, class Tiling, class Protocol = StandardFlashProtocol,
          class Context>
SHARDPROOF_DEVICE void FlashQueryGradients(Context& context,
                                           const FlashBackwardArgs& args) {
  constexpr int kHeadDim = Tiling::kHeadDim, kRows = Tiling::kRows;
  constexpr int kKeys = Tiling::kColumns, kRowTiles = Tiling::kRowTiles;
  constexpr uint32_t kQ = 0, kDo = Tiling::kRowsBytes;
  constexpr uint32_t kStages = 2 * Tiling::kRowsBytes;
  constexpr uint32_t kStage = 2 * Tiling::kColumnsBytes;
  const FlashWork& work = args.work;
  const int queries = work.sight.queries.count;
  const FlashPart part = FlashPartOf(context.block(), TilesOf(queries, kRows),
                                     work.heads, TileOrder::kLastTileFirst);
  const int kv_head = work.KvHeadOf(part.head);
  const int row = part.tile * kRows;
  const int rows = queries - row < kRows ? queries - row : kRows;
  const int lane = context.thread() % kWarpLanes;
  const int warp_row = context.thread() / kWarpLanes * Tiling::kRowsOfAWarp;

  const SeenByTile tile =
      TileSees(KeysSeen(work.sight, row), KeysSeen(work.sight, row + rows - 1));
  float exponent[2 * kRowTiles], delta[2 * kRowTiles];
  const int64_t plane = int64_t{part.sequence} * work.heads + part.head;
  SHARDPROOF_UNROLLED
  for (int n = 0; n < 2 * kRowTiles; ++n) {
    const int token = row + warp_row + RowOfLane(lane, n);
    // What is beyond the last query is not stored.
    const int there = token < queries ? token : row;
    exponent[n] =
        ExponentOf(context.Load(args.lse + plane * args.lse_stride + there));
    delta[n] = context.Load(args.delta + plane * args.delta_stride + there);
  }

  const auto copy = [&](int key, uint32_t to) {
    const int there = work.sight.keys.count - key;
    CopyTile<kKeys, kHeadDim, Tiling::kThreads>(
        context, to,
        args.k.template Row<const T>(part.sequence, kv_head, key, kHeadDim),
        args.k.stride, there);
    CopyTile<kKeys, kHeadDim, Tiling::kThreads>(
        context, to + Tiling::kColumnsBytes,
        args.v.template Row<const T>(part.sequence, kv_head, key, kHeadDim),
        args.v.stride, there);
    context.CommitCopies();
  };

  float dq[kRowTiles][kHeadDim / kMmaColumns][4];
  SetZero(dq);
  int key = tile.some.first / kKeys * kKeys;
  uint32_t stage = kStages;
  if (key < tile.some.last) {
    CopyTile<kRows, kHeadDim, Tiling::kThreads>(
        context, kQ,
        args.q.template Row<const T>(part.sequence, part.head, row, kHeadDim),
        args.q.stride, rows);
    CopyTile<kRows, kHeadDim, Tiling::kThreads>(
        context, kDo,
        args.d_o.template Row<const T>(part.sequence, part.head, row, kHeadDim),
        args.d_o.stride, rows);
    copy(key, stage);
  }
  for (; key < tile.some.last; key += kKeys) {
    const uint32_t k = stage, v = stage + Tiling::kColumnsBytes;
    if (Protocol::kTurnsStages) stage = kStages + (kStages + kStage - stage);
    AwaitCopies<Protocol>(context);
    if (key + kKeys < tile.some.last) copy(key + kKeys, stage);
    float s[kRowTiles][kKeys / kMmaColumns][4],
        dp[kRowTiles][kKeys / kMmaColumns][4];
    SetZero(s);
    SetZero(dp);
    MultiplyRows<T, kHeadDim, Protocol::kSwizzles>(context, s, kQ, warp_row, k);
    MultiplyRows<T, kHeadDim, Protocol::kSwizzles>(context, dp, kDo, warp_row,
                                                   v);
    if (!tile.IsWhole(key, key + kKeys)) {
      HideUnseen<Protocol>(lane, key, s, [&](int number) {
        return KeysSeen(work.sight, row + warp_row + RowOfLane(lane, number));
      });
    }
    SHARDPROOF_UNROLLED
    for (int r = 0; r < kRowTiles; ++r) {
      SHARDPROOF_UNROLLED
      for (int n = 0; n < kKeys / kMmaColumns; ++n) {
        SHARDPROOF_UNROLLED
        for (int i = 0; i < 4; ++i) {
          ToGradients<Protocol>(context, work.exponent_scale,
                                exponent[2 * r + i / 2], delta[2 * r + i / 2],
                                s[r][n][i], dp[r][n][i]);
        }
      }
    }
    MultiplyResults<T, Protocol::kSwizzles>(context, dq, dp, k);
  }
  StoreGradients(context, args.dq, args.overwrite, part.sequence, part.head,
                 row + warp_row, queries, work.scale, dq);
}

}  // namespace shardproof::cuda

#endif  // SHARDPROOF_ATTENTION_KERNELS_CUDA_QUERY_GRADIENTS_H_
