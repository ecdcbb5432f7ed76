// Attention forward: S = Q K^T, online softmax over tiles of keys (softmax.h), O = a O + P V.
//
// A block has a tile of queries of one head (arguments.h). Q stays in shared memory; K and V have one place each, and the
// copy of one goes on while the other is used:
//
//     K of a tile has come | copy V | S = Q K^T | V has come | copy the next K | softmax | O += P V
//
// Both barriers are of two uses: what all threads copied is there, and nobody reads the other place any more.
//
// P is rounded to T before the product with V, and summed as it is before that; everything else is f32.
#ifndef SHARDPROOF_ATTENTION_KERNELS_CUDA_FORWARD_H_
#define SHARDPROOF_ATTENTION_KERNELS_CUDA_FORWARD_H_

#include <cstdint>

#include "attention/kernels/cuda/arguments.h"
#include "attention/kernels/cuda/mask.h"
#include "attention/kernels/cuda/products.h"
#include "attention/kernels/cuda/protocol.h"
#include "attention/kernels/cuda/softmax.h"

namespace shardproof::cuda {

template <class T, class Tiling, class Protocol = StandardFlashProtocol,
          class Context>
SHARDPROOF_DEVICE void FlashForward(Context& context,
                                    const FlashForwardArgs& args) {
  constexpr int kHeadDim = Tiling::kHeadDim, kRows = Tiling::kRows;
  constexpr int kKeys = Tiling::kColumns, kRowTiles = Tiling::kRowTiles;
  constexpr uint32_t kQ = 0, kK = Tiling::kRowsBytes;
  constexpr uint32_t kV = kK + Tiling::kColumnsBytes;
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
  const auto copy = [&](const FlashIn& from, uint32_t to, int key) {
    CopyTile<kKeys, kHeadDim, Tiling::kThreads>(
        context, to,
        from.template Row<const T>(part.sequence, kv_head, key, kHeadDim),
        from.stride, work.sight.keys.count - key);
    context.CommitCopies();
  };

  float o[kRowTiles][kHeadDim / kMmaColumns][4];
  SetZero(o);
  RowSums<2 * kRowTiles> sums;
  sums.Clear();

  int key = tile.some.first / kKeys * kKeys;
  if (key < tile.some.last) {
    CopyTile<kRows, kHeadDim, Tiling::kThreads>(
        context, kQ,
        args.q.template Row<const T>(part.sequence, part.head, row, kHeadDim),
        args.q.stride, rows);
    copy(args.k, kK, key);
  }
  for (; key < tile.some.last; key += kKeys) {
    AwaitCopies<Protocol>(context);
    copy(args.v, kV, key);
    float s[kRowTiles][kKeys / kMmaColumns][4];
    SetZero(s);
    MultiplyRows<T, kHeadDim, Protocol::kSwizzles>(context, s, kQ, warp_row,
                                                   kK);
    if constexpr (Protocol::kWaits) context.template WaitForCopies<0>();
    if constexpr (Protocol::kSyncsAgain) context.Sync();
    if (key + kKeys < tile.some.last) copy(args.k, kK, key + kKeys);
    if (!tile.IsWhole(key, key + kKeys)) {
      HideUnseen<Protocol>(lane, key, s, [&](int number) {
        return KeysSeen(work.sight, row + warp_row + RowOfLane(lane, number));
      });
    }
    SHARDPROOF_UNROLLED
    for (int n = 0; n < 2 * kRowTiles; ++n) {
      RescaleRow<Protocol>(
          OnlineSoftmaxOfRow(context, work.exponent_scale, n, s, sums), n, o);
    }
    MultiplyResults<T, Protocol::kSwizzles>(context, o, s, kV);
  }

  StoreResults<T, kHeadDim, Protocol>(context, args, part, row + warp_row, sums,
                                      o);
}

}  // namespace shardproof::cuda

#endif  // SHARDPROOF_ATTENTION_KERNELS_CUDA_FORWARD_H_
