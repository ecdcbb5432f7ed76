// The products of a warp: its rows of a tile, times a tile of columns. Results are float[row tiles][operands][4].
//
//     MultiplyRows        C += A B^T    A and B in shared memory, both [.., head dim]
//     MultiplyResults     C += P B      P results of before, rounded to T; B in shared memory, [columns of P, head dim]
#ifndef SHARDPROOF_ATTENTION_KERNELS_CUDA_PRODUCTS_H_
#define SHARDPROOF_ATTENTION_KERNELS_CUDA_PRODUCTS_H_

#include <cstdint>

#include "attention/kernels/cuda/fragment.h"
#include "attention/kernels/cuda/tile.h"

namespace shardproof::cuda {

// Operands that are multiplied by one call of Multiply.
inline constexpr int kBatch = 4;

template <int kRowTiles, int kOperands>
SHARDPROOF_DEVICE void SetZero(float (&c)[kRowTiles][kOperands][4]) {
  SHARDPROOF_UNROLLED
  for (int r = 0; r < kRowTiles; ++r) {
    SHARDPROOF_UNROLLED
    for (int n = 0; n < kOperands; ++n) {
      SHARDPROOF_UNROLLED
      for (int i = 0; i < 4; ++i) c[r][n][i] = 0;
    }
  }
}

// kBatch operands of B, of rows from `row` on.
template <int kDepth, bool kSwizzles, class Context>
SHARDPROOF_DEVICE void LoadBatch(Context& context, uint32_t (&b)[kBatch][2],
                                 uint32_t base, int row, int column) {
  SHARDPROOF_UNROLLED
  for (int n = 0; n < kBatch; n += 2) {
    uint32_t words[4];
    LoadB<kDepth, kSwizzles>(context, words, base, row + n * kMmaColumns,
                             column);
    b[n][0] = words[0], b[n][1] = words[1];
    b[n + 1][0] = words[2], b[n + 1][1] = words[3];
  }
}
template <int kColumns, bool kSwizzles, class Context>
SHARDPROOF_DEVICE void LoadTransposedBatch(Context& context,
                                           uint32_t (&b)[kBatch][2],
                                           uint32_t base, int row, int column) {
  SHARDPROOF_UNROLLED
  for (int n = 0; n < kBatch; n += 2) {
    uint32_t words[4];
    LoadTransposedB<kColumns, kSwizzles>(context, words, base, row,
                                         column + n * kMmaColumns);
    b[n][0] = words[0], b[n][1] = words[1];
    b[n + 1][0] = words[2], b[n + 1][1] = words[3];
  }
}

// Of rows [row, row + 16 kRowTiles) of the tile at `a_base` with all 8 kOperands rows of that at `b_base`.
template <class T, int kDepth, bool kSwizzles, class Context, int kRowTiles,
          int kOperands>
SHARDPROOF_DEVICE void MultiplyRows(Context& context,
                                    float (&c)[kRowTiles][kOperands][4],
                                    uint32_t a_base, int row, uint32_t b_base) {
  static_assert(kOperands % kBatch == 0);
  SHARDPROOF_UNROLLED
  for (int k = 0; k < kDepth; k += kMmaDepth) {
    uint32_t a[kRowTiles][4];
    SHARDPROOF_UNROLLED
    for (int r = 0; r < kRowTiles; ++r) {
      LoadA<kDepth>(context, a[r], a_base, row + r * kMmaRows, k);
    }
    SHARDPROOF_UNROLLED
    for (int n = 0; n < kOperands; n += kBatch) {
      uint32_t b[kBatch][2];
      LoadBatch<kDepth, kSwizzles>(context, b, b_base, n * kMmaColumns, k);
      context.template Multiply<T>(c, n, a, b);
    }
  }
}

// p: float[kRowTiles][columns of P / 8][4].
template <class T, bool kSwizzles, class Context, int kRowTiles, int kOperands,
          int kResults>
SHARDPROOF_DEVICE void MultiplyResults(Context& context,
                                       float (&c)[kRowTiles][kOperands][4],
                                       const float (&p)[kRowTiles][kResults][4],
                                       uint32_t b_base) {
  constexpr int kColumns = kOperands * kMmaColumns;
  static_assert(kOperands % kBatch == 0 && kResults % 2 == 0);
  SHARDPROOF_UNROLLED
  for (int k = 0; k < kResults / 2; ++k) {
    uint32_t a[kRowTiles][4];
    SHARDPROOF_UNROLLED
    for (int r = 0; r < kRowTiles; ++r) {
      SHARDPROOF_UNROLLED
      for (int word = 0; word < 4; ++word) {
        const WordOfC from = WordOfAFromC(word);
        const float* const two = &p[r][2 * k + from.tile][from.first];
        a[r][word] = context.template Pack<T>(two[0], two[1]);
      }
    }
    SHARDPROOF_UNROLLED
    for (int n = 0; n < kOperands; n += kBatch) {
      uint32_t b[kBatch][2];
      LoadTransposedBatch<kColumns, kSwizzles>(context, b, b_base,
                                               k * kMmaDepth, n * kMmaColumns);
      context.template Multiply<T>(c, n, a, b);
    }
  }
}

// The rows of results that a lane has: number 2 r + h is row 16 r + 8 h + lane / 4 of its warp.
SHARDPROOF_DEVICE int RowOfLane(int lane, int number) {
  return number / 2 * kMmaRows + PlaceInC(lane, number % 2 * 2).row;
}

}  // namespace shardproof::cuda

#endif  // SHARDPROOF_ATTENTION_KERNELS_CUDA_PRODUCTS_H_
