// The elementwise half of flash attention: what is done to a tile of scores
// between two products. Internal to attention/kernels.
//
// In f32 exponents are of base 2, x = s (scale lg e), which saves an operation
// each; they leave as natural logarithms.
//
// An exp errs by less than 2 units of the accumulator's roundoff in f32 and f64,
// and by less than 2^-18 relatively where probabilities are rounded to bf16,
// which is a thousandth of that rounding. exp(0) is 1.
#ifndef SHARDPROOF_ATTENTION_KERNELS_FLASH_ROWS_H_
#define SHARDPROOF_ATTENTION_KERNELS_FLASH_ROWS_H_

#include <cstdint>

#include "attention/visibility.h"
#include "reference/dtype.h"

namespace shardproof::kernels {

// Tiles are row-major and contiguous; `columns` and `width` are multiples of 16.
// P is of `products`: f32, bf16 or f64; all else of Accumulator(products).
//
// With m the largest score that a row has seen, l the sum of its exponentials
// and O what is made of them:
//
//     m' = max(m, max s)    p = exp(scale (s - m'))    a = exp(scale (m - m'))
//     l  = a l + sum p      O = a O                    m = m'
//
// and 0 in P where a row does not see.
struct ForwardTile {
  DType products = DType::kF32;
  double scale = 1;
  int64_t rows = 0;
  int64_t columns = 0;
  int64_t width = 0;
  const IndexRange* seen = nullptr;  // Of each row, in [0, columns].
  const void* scores = nullptr;      // [rows, columns]
  void* probabilities = nullptr;     // The same.
  void* o = nullptr;                 // [rows, width]
  void* top = nullptr;               // [rows]: m, -inf at first.
  void* sum = nullptr;               // [rows]: l, 0 at first.
};
void ForwardRows(const ForwardTile& tile);

// O = O / l and lse = scale m + ln l; 0 and -inf where nothing was seen.
struct LastRows {
  DType products = DType::kF32;
  double scale = 1;
  int64_t rows = 0;
  int64_t width = 0;
  void* o = nullptr;
  const void* top = nullptr;
  const void* sum = nullptr;
  void* lse = nullptr;
};
void FinishRows(const LastRows& rows);

// Rows are keys here, columns queries.
//
//     p = exp(scale s - lse)      ds = p (dp - delta)
//
// and 0 where they do not see one another.
struct BackwardTile {
  DType products = DType::kF32;
  double scale = 1;
  int64_t rows = 0;
  int64_t columns = 0;
  const IndexRange* seen = nullptr;       // The queries that see each row.
  const void* scores = nullptr;           // [rows, columns]
  const void* d_probabilities = nullptr;  // The same.
  const void* exponents = nullptr;        // [columns], by ExponentsOf.
  const void* delta = nullptr;            // [columns]
  void* probabilities = nullptr;          // [rows, columns], of `products`
  void* d_scores = nullptr;               // The same.
};
void BackwardRows(const BackwardTile& tile);
// lse as BackwardRows takes it. +inf for -inf: such a query sees nothing.
void ExponentsOf(DType products, const void* lse, int64_t n, void* exponents);

// to[i] = to[i] + scale from[i], or scale from[i]. f32 or f64.
void AddScaled(DType dtype, const void* from, int64_t n, double scale,
               bool overwrite, void* to);
// to[c, r] = from[r, c].
void Transposed(DType dtype, const void* from, int64_t rows, int64_t columns,
                void* to);

}  // namespace shardproof::kernels

#endif  // SHARDPROOF_ATTENTION_KERNELS_FLASH_ROWS_H_
