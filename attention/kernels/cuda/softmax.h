// Online softmax over tiles of keys, and the results it ends in: what the forward kernels have in common. All of a row's
// sums are in registers of one quad of lanes.
//
//     S: scores     m' = max(m, max S)    P = 2^(c S - c m')    a = 2^(c m - c m')     c = scale lg e
//     OnlineSoftmaxOfRow  S becomes P, l becomes a l + rowsum P, m becomes m'; a is kept for
//     RescaleRow          O = a O, before O += P V
//     StoreResults        O / l, and lse = ln 2 (c m + lg l)
//
// Sources: Milakov and Gimelshein, arXiv:1805.02867; Dao, arXiv:2307.08691.
#ifndef SHARDPROOF_ATTENTION_KERNELS_CUDA_SOFTMAX_H_
#define SHARDPROOF_ATTENTION_KERNELS_CUDA_SOFTMAX_H_

#include <cmath>
#include <cstdint>

#include "attention/kernels/cuda/arguments.h"
#include "attention/kernels/cuda/fragment.h"
#include "attention/kernels/cuda/products.h"
#include "attention/kernels/cuda/tile.h"
#include "collectives/backend/cuda/kernels/world.h"

namespace shardproof::cuda {

// The largest score of each row of a lane, and the sum of its exponentials, over the lane's own columns.
template <int kRows>
struct RowSums {
  float max[kRows];
  float sum[kRows];

  SHARDPROOF_DEVICE void Clear() {
    SHARDPROOF_UNROLLED
    for (int n = 0; n < kRows; ++n) {
      max[n] = -INFINITY;
      sum[n] = 0;
    }
  }
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

// Row number `row` of a lane: its scores become exponentials. Returns what O is to be multiplied by.
template <class Context, int kRowTiles, int kScores>
SHARDPROOF_DEVICE float OnlineSoftmaxOfRow(Context& context, float c, int row,
                                           float (&s)[kRowTiles][kScores][4],
                                           RowSums<2 * kRowTiles>& rows) {
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
  return factor;
}

template <class Protocol, int kRowTiles, int kOperands>
SHARDPROOF_DEVICE void RescaleRow(float factor, int row,
                                  float (&o)[kRowTiles][kOperands][4]) {
  if constexpr (Protocol::kRescales) {
    const int r = row / 2, h = row % 2 * 2;
    SHARDPROOF_UNROLLED
    for (int n = 0; n < kOperands; ++n) {
      o[r][n][h] *= factor;
      o[r][n][h + 1] *= factor;
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

// The rows of a warp, the first of which is query `row` of the call: O and lse.
template <class T, int kHeadDim, class Protocol, class Context, int kRowTiles,
          int kOperands>
SHARDPROOF_DEVICE void StoreResults(Context& context,
                                    const FlashForwardArgs& args,
                                    const FlashPart& part, int row,
                                    const RowSums<2 * kRowTiles>& sums,
                                    const float (&o)[kRowTiles][kOperands][4]) {
  static_assert(kOperands * kMmaColumns == kHeadDim);
  const FlashWork& work = args.work;
  const int lane = context.thread() % kWarpLanes;
  SHARDPROOF_UNROLLED
  for (int n = 0; n < 2 * kRowTiles; ++n) {
    const int token = row + RowOfLane(lane, n);
    const float sum = QuadSum(context, sums.sum[n]);
    const float factor = sum == 0 ? 0.0F : 1 / sum;
    if (token >= work.sight.queries.count) continue;
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
    for (int e = 0; e < kOperands; ++e) {
      const float* const two = &o[n / 2][e][n % 2 * 2];
      StorePair<T>(context, args.o, args.o_is_wide, part.sequence, part.head,
                   token, kHeadDim, e * kMmaColumns + PlaceInC(lane, 0).column,
                   two[0] * factor, two[1] * factor);
    }
  }
}

}  // namespace shardproof::cuda

#endif  // SHARDPROOF_ATTENTION_KERNELS_CUDA_SOFTMAX_H_
