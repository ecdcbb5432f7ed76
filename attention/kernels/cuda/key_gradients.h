// dK and dV: a block has the keys of one tile and KV head, and goes over the heads of its group, and over the queries of
// each that see these keys.
//
//     Q, dO, lse and delta of a step have come | copy those of the next one |
//         S^T = K Q^T | dP^T = V dO^T | P^T, dS^T | dV += P^T dO | dK += dS^T Q
//
// Rows are keys, so that P^T and dS^T are results of a warp and its next operands at once, and go through no memory. K
// and V stay in shared memory; the others have two places, used in turn, as in query_gradients.h.
#ifndef SHARDPROOF_ATTENTION_KERNELS_CUDA_KEY_GRADIENTS_H_
#define SHARDPROOF_ATTENTION_KERNELS_CUDA_KEY_GRADIENTS_H_

#include <cstdint>

#include "attention/kernels/cuda/gradients.h"
#include "attention/kernels/cuda/mask.h"

namespace shardproof::cuda {

template <class T, class Tiling, class Protocol = StandardFlashProtocol,
          class Context>
SHARDPROOF_DEVICE void FlashKeyGradients(Context& context,
                                         const FlashBackwardArgs& args) {
  constexpr int kHeadDim = Tiling::kHeadDim, kRows = Tiling::kRows;
  constexpr int kQueries = Tiling::kColumns, kRowTiles = Tiling::kRowTiles;
  constexpr uint32_t kK = 0, kV = Tiling::kRowsBytes;
  constexpr uint32_t kStages = 2 * Tiling::kRowsBytes;
  constexpr uint32_t kPerQuery = kQueries * sizeof(float);
  constexpr uint32_t kStage = 2 * Tiling::kColumnsBytes + 2 * kPerQuery;
  static_assert(2 * kQueries <= Tiling::kThreads);
  const FlashWork& work = args.work;
  const int keys = work.sight.keys.count;
  const int queries = work.sight.queries.count;
  const FlashPart part = FlashPartOf(context.block(), TilesOf(keys, kRows),
                                     work.kv_heads, TileOrder::kFirstTileFirst);
  const int row = part.tile * kRows;
  const int rows = keys - row < kRows ? keys - row : kRows;
  const int lane = context.thread() % kWarpLanes;
  const int warp_row = context.thread() / kWarpLanes * Tiling::kRowsOfAWarp;

  const SeenByTile tile = TileSees(QueriesSeeing(work.sight, row),
                                   QueriesSeeing(work.sight, row + rows - 1));
  const auto copy = [&](int head, int query, uint32_t to) {
    const int there = queries - query;
    CopyTile<kQueries, kHeadDim, Tiling::kThreads>(
        context, to,
        args.q.template Row<const T>(part.sequence, head, query, kHeadDim),
        args.q.stride, there);
    CopyTile<kQueries, kHeadDim, Tiling::kThreads>(
        context, to + Tiling::kColumnsBytes,
        args.d_o.template Row<const T>(part.sequence, head, query, kHeadDim),
        args.d_o.stride, there);
    // lse by the first threads, delta by the next ones.
    const int i = context.thread() % kQueries;
    const int which = context.thread() / kQueries;
    if (which < 2) {
      const int64_t plane = int64_t{part.sequence} * work.heads + head;
      const float* const from = which == 0
                                    ? args.lse + plane * args.lse_stride
                                    : args.delta + plane * args.delta_stride;
      context.template CopyAsync<4>(
          to + 2 * Tiling::kColumnsBytes + which * kPerQuery +
              static_cast<uint32_t>(i * sizeof(float)),
          from + (i < there ? query + i : 0), i < there);
    }
    context.CommitCopies();
  };

  float dk[kRowTiles][kHeadDim / kMmaColumns][4];
  float dv[kRowTiles][kHeadDim / kMmaColumns][4];
  SetZero(dk);
  SetZero(dv);
  const int begin = tile.some.first / kQueries * kQueries;
  const int last_head = work.LastHeadOf(part.head);
  int head = work.FirstHeadOf(part.head), query = begin;
  const bool any = begin < tile.some.last && head < last_head;
  uint32_t stage = kStages;
  if (any) {
    CopyTile<kRows, kHeadDim, Tiling::kThreads>(
        context, kK,
        args.k.template Row<const T>(part.sequence, part.head, row, kHeadDim),
        args.k.stride, rows);
    CopyTile<kRows, kHeadDim, Tiling::kThreads>(
        context, kV,
        args.v.template Row<const T>(part.sequence, part.head, row, kHeadDim),
        args.v.stride, rows);
    copy(head, query, stage);
  }
  while (any && head < last_head) {
    const uint32_t q = stage, d_o = stage + Tiling::kColumnsBytes;
    const uint32_t per_query = stage + 2 * Tiling::kColumnsBytes;
    if (Protocol::kTurnsStages) stage = kStages + (kStages + kStage - stage);
    const int this_query = query;
    query += kQueries;
    if (query >= tile.some.last) {
      query = begin;
      ++head;
    }
    AwaitCopies<Protocol>(context);
    if (head < last_head) copy(head, query, stage);
    float s[kRowTiles][kQueries / kMmaColumns][4];
    float dp[kRowTiles][kQueries / kMmaColumns][4];
    SetZero(s);
    SetZero(dp);
    MultiplyRows<T, kHeadDim, Protocol::kSwizzles>(context, s, kK, warp_row, q);
    MultiplyRows<T, kHeadDim, Protocol::kSwizzles>(context, dp, kV, warp_row,
                                                   d_o);
    if (!tile.IsWhole(this_query, this_query + kQueries)) {
      HideUnseen<Protocol>(lane, this_query, s, [&](int number) {
        return QueriesSeeing(work.sight,
                             row + warp_row + RowOfLane(lane, number));
      });
    }
    SHARDPROOF_UNROLLED
    for (int n = 0; n < kQueries / kMmaColumns; ++n) {
      const uint32_t at =
          per_query +
          static_cast<uint32_t>((n * kMmaColumns + PlaceInC(lane, 0).column) *
                                static_cast<int>(sizeof(float)));
      const auto two = [&](uint32_t offset) {
        return context.Load(
            reinterpret_cast<const TwoFloats*>(context.SharedAt(offset)));
      };
      const TwoFloats lse = two(at), delta = two(at + kPerQuery);
      const float exponents[2] = {ExponentOf(lse.low), ExponentOf(lse.high)};
      const float deltas[2] = {delta.low, delta.high};
      SHARDPROOF_UNROLLED
      for (int r = 0; r < kRowTiles; ++r) {
        SHARDPROOF_UNROLLED
        for (int i = 0; i < 4; ++i) {
          ToGradients<Protocol>(context, work.exponent_scale, exponents[i % 2],
                                deltas[i % 2], s[r][n][i], dp[r][n][i]);
        }
      }
    }
    MultiplyResults<T, Protocol::kSwizzles>(context, dv, s, d_o);
    MultiplyResults<T, Protocol::kSwizzles>(context, dk, dp, q);
  }
  StoreGradients(context, args.dv, args.overwrite, part.sequence, part.head,
                 row + warp_row, keys, 1.0F, dv);
  StoreGradients(context, args.dk, args.overwrite, part.sequence, part.head,
                 row + warp_row, keys, work.scale, dk);
}

}  // namespace shardproof::cuda

#endif  // SHARDPROOF_ATTENTION_KERNELS_CUDA_KEY_GRADIENTS_H_
