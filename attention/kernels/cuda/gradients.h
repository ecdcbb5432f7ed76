// Attention backward: delta, and what the kernels of dQ and of dK and dV have in common.
//
//     S = Q K^T     P = 2^(c S - lg e lse)     dS = P (dO V^T - delta)     c = scale lg e, delta = rowsum(dO * O)
//
//     query_gradients.h    rows are queries    dQ = scale dS K
//     key_gradients.h      rows are keys       dK = scale dS^T Q      dV = P^T dO
//
// Each of the two makes S and dO V^T for itself: 7 products of 2 d operations a pair of a query and a key instead of 5,
// and no gradient is added to by two blocks. So there are no atomics, and the same call gives the same bits.
//
// Rejected: one kernel over keys that adds dQ by atomics (5 products, but sums in another order each time) or in turns
// (blocks that wait for each other, in a grid that need not be on the GPU together).
//
// P and dS are rounded to T before they are multiplied; everything else is f32.
//
// Source: Dao, arXiv:2307.08691.
#ifndef SHARDPROOF_ATTENTION_KERNELS_CUDA_GRADIENTS_H_
#define SHARDPROOF_ATTENTION_KERNELS_CUDA_GRADIENTS_H_

#include <cmath>
#include <cstdint>

#include "attention/kernels/cuda/arguments.h"
#include "attention/kernels/cuda/products.h"
#include "attention/kernels/cuda/protocol.h"

namespace shardproof::cuda {

// A block of kDeltaThreads threads has kDeltaRows rows, a warp one at a time.
inline constexpr int kDeltaThreads = 256;
inline constexpr int kDeltaRows = 32;

// Two elements of a row from `column` on, an even number.
struct alignas(8) TwoFloats {
  float low, high;
};
template <class T, class Context, class Void>
SHARDPROOF_DEVICE TwoFloats LoadPair(Context& context,
                                     const FlashTokens<Void>& from,
                                     bool is_wide, int sequence, int head,
                                     int token, int head_dim, int column) {
  if (is_wide) {
    const float* const row =
        from.template Row<const float>(sequence, head, token, head_dim);
    return context.Load(reinterpret_cast<const TwoFloats*>(row + column));
  }
  struct alignas(4) TwoNarrow {
    T low, high;
  };
  const T* const row =
      from.template Row<const T>(sequence, head, token, head_dim);
  const auto two =
      context.Load(reinterpret_cast<const TwoNarrow*>(row + column));
  return {context.Widen(two.low), context.Widen(two.high)};
}

// A lane adds the products of columns 2 lane, 2 lane + 1, and so on by 64; then the lanes' sums are added in pairs.
template <class T, int kHeadDim, class Context>
SHARDPROOF_DEVICE void FlashDelta(Context& context,
                                  const FlashDeltaArgs& args) {
  constexpr int kWarps = kDeltaThreads / kWarpLanes;
  const FlashWork& work = args.work;
  const int queries = work.sight.queries.count;
  const FlashPart part =
      FlashPartOf(context.block(), TilesOf(queries, kDeltaRows), work.heads,
                  TileOrder::kFirstTileFirst);
  const int lane = context.thread() % kWarpLanes;
  SHARDPROOF_UNROLLED
  for (int n = 0; n < kDeltaRows / kWarps; ++n) {
    const int token =
        part.tile * kDeltaRows + n * kWarps + context.thread() / kWarpLanes;
    if (token >= queries) break;  // With its whole warp.
    float sum = 0;
    SHARDPROOF_UNROLLED
    for (int column = 2 * lane; column < kHeadDim; column += 2 * kWarpLanes) {
      const TwoFloats d_o = LoadPair<T>(context, args.d_o, false, part.sequence,
                                        part.head, token, kHeadDim, column);
      const TwoFloats o =
          LoadPair<T>(context, args.o, args.o_is_wide, part.sequence, part.head,
                      token, kHeadDim, column);
      sum = fmaf(d_o.low, o.low, sum);
      sum = fmaf(d_o.high, o.high, sum);
    }
    for (int mask = kWarpLanes / 2; mask > 0; mask /= 2) {
      sum += context.ShuffleXor(sum, mask);
    }
    if (lane == 0) {
      context.Store(args.delta +
                        (int64_t{part.sequence} * work.heads + part.head) *
                            args.delta_stride +
                        token,
                    sum);
    }
  }
}

// lg e lse; +inf for -inf, of a query that sees nothing and has no probabilities.
SHARDPROOF_DEVICE float ExponentOf(float lse) {
  return lse == -INFINITY ? INFINITY : lse * static_cast<float>(kLgE);
}

// One element: s becomes p, dp becomes ds.
template <class Protocol, class Context>
SHARDPROOF_DEVICE void ToGradients(Context& context, float c, float exponent,
                                   float delta, float& s, float& dp) {
  s = context.Exp2(fmaf(s, c, -exponent));
  dp = s * (Protocol::kAddsDelta ? dp - delta : dp);
}

// scale times the results of a warp's rows, added to `out` or in its place.
template <class Context, int kRowTiles, int kOperands>
SHARDPROOF_DEVICE void StoreGradients(
    Context& context, const FlashOut& out, bool overwrite, int sequence,
    int head, int first, int count, float scale,
    const float (&c)[kRowTiles][kOperands][4]) {
  constexpr int kHeadDim = kOperands * kMmaColumns;
  const int lane = context.thread() % kWarpLanes;
  SHARDPROOF_UNROLLED
  for (int number = 0; number < 2 * kRowTiles; ++number) {
    const int token = first + RowOfLane(lane, number);
    if (token >= count) continue;
    float* const row =
        out.template Row<float>(sequence, head, token, kHeadDim) +
        PlaceInC(lane, 0).column;
    SHARDPROOF_UNROLLED
    for (int n = 0; n < kOperands; ++n) {
      auto* const to = reinterpret_cast<TwoFloats*>(row + n * kMmaColumns);
      const float* const two = &c[number / 2][n][number % 2 * 2];
      TwoFloats value = {two[0] * scale, two[1] * scale};
      if (!overwrite) {
        const TwoFloats before = context.Load(to);
        value.low += before.low;
        value.high += before.high;
      }
      context.Store(to, value);
    }
  }
}

}  // namespace shardproof::cuda

#endif  // SHARDPROOF_ATTENTION_KERNELS_CUDA_GRADIENTS_H_
