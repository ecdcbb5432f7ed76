// Attention forward: online softmax over tiles of keys, all of a row's sums in registers of one quad of lanes.
//
//     S = Q K^T    m' = max(m, max S)    P = 2^(c S - c m')    a = 2^(c m - c m')     c = scale lg e
//     l = a l + rowsum P                 O = a O + P V         m = m'
//     O / l                              lse = ln 2 (c m + lg l)
//
// A block has a tile of queries of one head (arguments.h). Q stays in shared memory; K and V have one place each, and the
// copy of one goes on while the other is used:
//
//     K of a tile has come | copy V | S = Q K^T | V has come | copy the next K | softmax | O += P V
//
// Both barriers are of two uses: what all threads copied is there, and nobody reads the other place any more.
//
// P is rounded to T before the product with V, and summed as it is before that; everything else is f32.
//
// Sources: Milakov and Gimelshein, arXiv:1805.02867; Dao, arXiv:2307.08691.
#ifndef SHARDPROOF_ATTENTION_KERNELS_CUDA_FORWARD_H_
#define SHARDPROOF_ATTENTION_KERNELS_CUDA_FORWARD_H_

#include <cmath>
#include <cstdint>

#include "attention/kernels/cuda/arguments.h"
#include "attention/kernels/cuda/mask.h"
#include "attention/kernels/cuda/products.h"
#include "attention/kernels/cuda/protocol.h"

namespace shardproof::cuda {

// The largest score of each row of a lane, and the sum of its exponentials, over the lane's own columns.
template <int kRows>
struct RowSums {
  float max[kRows];
  float sum[kRows];
};

template <class Context>
SHARDPROOF_DEVICE float QuadMax(Context& context, float value) {
  value = fmaxf(value, context.ShuffleXor(value, 1));
  return fmaxf(value, context.ShuffleXor(value, 2));
}
template <class Context>
SHARDPROOF_DEVICE float QuadSum(Context& context, float value) {
  value += context.ShuffleXor(value, 1);
  return value + context.ShuffleXor(value, 2);
}

// c m, and 0 for a row that has seen nothing, so that 2^(-inf - c m) is 0.
SHARDPROOF_DEVICE float Subtrahend(float max, float c) {
  return max == -INFINITY ? 0.0F : max * c;
}

// Scores become exponentials; O and the sums are rescaled.
template <class Protocol, class Context, int kRowTiles, int kScores,
          int kOperands>
SHARDPROOF_DEVICE void OnlineSoftmax(Context& context, float c,
                                     float (&s)[kRowTiles][kScores][4],
                                     RowSums<2 * kRowTiles>& rows,
                                     float (&o)[kRowTiles][kOperands][4]) {
  SHARDPROOF_UNROLLED
  for (int row = 0; row < 2 * kRowTiles; ++row) {
    const int r = row / 2, h = row % 2 * 2;
    float max = rows.max[row];
    SHARDPROOF_UNROLLED
    for (int n = 0; n < kScores; ++n) {
      max = fmaxf(max, fmaxf(s[r][n][h], s[r][n][h + 1]));
    }
    max = QuadMax(context, max);
    const float subtrahend = Subtrahend(max, c);
    const float factor = context.Exp2(rows.max[row] * c - subtrahend);
    float sum = rows.sum[row] * factor;
    SHARDPROOF_UNROLLED
    for (int n = 0; n < kScores; ++n) {
      SHARDPROOF_UNROLLED
      for (int i = h; i < h + 2; ++i) {
        s[r][n][i] = context.Exp2(fmaf(s[r][n][i], c, -subtrahend));
        sum += s[r][n][i];
      }
    }
    rows.max[row] = max;
    rows.sum[row] = sum;
    if constexpr (Protocol::kRescales) {
      SHARDPROOF_UNROLLED
      for (int n = 0; n < kOperands; ++n) {
        o[r][n][h] *= factor;
        o[r][n][h + 1] *= factor;
      }
    }
  }
}

// A result of two neighbouring columns, of f32 or of T.
template <class T, class Context>
SHARDPROOF_DEVICE void StorePair(Context& context, const FlashOut& out,
                                 bool is_wide, int sequence, int head,
                                 int token, int head_dim, int column, float low,
                                 float high) {
  struct alignas(8) Two {
    float low, high;
  };
  if (is_wide) {
    float* const row = out.template Row<float>(sequence, head, token, head_dim);
    context.Store(reinterpret_cast<Two*>(row + column), Two{low, high});
  } else {
    T* const row = out.template Row<T>(sequence, head, token, head_dim);
    context.Store(reinterpret_cast<uint32_t*>(row + column),
                  context.template Pack<T>(low, high));
  }
}

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
  SHARDPROOF_UNROLLED
  for (int n = 0; n < 2 * kRowTiles; ++n) {
    sums.max[n] = -INFINITY;
    sums.sum[n] = 0;
  }

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
    OnlineSoftmax<Protocol>(context, work.exponent_scale, s, sums, o);
    MultiplyResults<T, Protocol::kSwizzles>(context, o, s, kV);
  }

  SHARDPROOF_UNROLLED
  for (int n = 0; n < 2 * kRowTiles; ++n) {
    const int token = row + warp_row + RowOfLane(lane, n);
    const float sum = QuadSum(context, sums.sum[n]);
    const float factor = sum == 0 ? 0.0F : 1 / sum;
    if (token >= queries) continue;
    if (lane % kLanesOfAQuad == 0) {
      const float max = Protocol::kMaxInLse
                            ? Subtrahend(sums.max[n], work.exponent_scale)
                            : 0.0F;
      const float lse =
          sum == 0 ? -INFINITY
                   : (max + context.Log2(sum)) * static_cast<float>(kLn2);
      context.Store(args.lse +
                        (int64_t{part.sequence} * work.heads + part.head) *
                            args.lse_stride +
                        token,
                    lse);
    }
    SHARDPROOF_UNROLLED
    for (int e = 0; e < kHeadDim / kMmaColumns; ++e) {
      const float* const two = &o[n / 2][e][n % 2 * 2];
      StorePair<T>(context, args.o, args.o_is_wide, part.sequence, part.head,
                   token, kHeadDim, e * kMmaColumns + PlaceInC(lane, 0).column,
                   two[0] * factor, two[1] * factor);
    }
  }
}

}  // namespace shardproof::cuda

#endif  // SHARDPROOF_ATTENTION_KERNELS_CUDA_FORWARD_H_
