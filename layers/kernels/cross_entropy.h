// The local work of a cross entropy whose logits are cut by columns: what a rank
// does between two sums over ranks.
//
// For token i with logits x [valid] here, m the largest of all ranks, S the sum
// of exp(x - m) over all, and weights q = smoothing / vocabulary everywhere plus
// 1 - smoothing at the target:
//
//     loss    = log S + sum of q (m - x)          both terms are >= 0
//     dx      = (exp(x - m) / S - q) w            w the token's upstream gradient
//
// All differences are to the maximum, so that nothing overflows and nothing
// cancels but in the last subtraction of dx. Weights add up to 1, so a shift of
// all logits changes nothing.
//
//     CrossEntropyLocal      local_max, and against it sum of exp and of x
//       ... largest over ranks: local_max -> max ...
//     CrossEntropyRescale    the sums against max, with the weights of q
//       ... sum over ranks: sums ...
//     CrossEntropyLoss       loss; 1 / S takes the place of S
//     CrossEntropyGradient   dx
//
// Statistics are of Accumulator(dtype). Logits are read once per pass, in blocks
// that stay in the first-level cache for the second look, and written once; no
// memory is asked for. NaN and Inf in the logits of a token that counts give a
// NaN. Columns from `valid` on are padding: not read, and their dx is 0; so is
// all of a token whose target is `ignore_index`. Types: f64, f32, bf16, f16.
//
// Errors are those of a device that computes instead of the host; the host has
// none.
//
// Source: Milakov and Gimelshein, arXiv:1805.02867 (maximum and sum in one pass);
// Szegedy et al., arXiv:1512.00567, section 7 (smoothing).
#ifndef SHARDPROOF_LAYERS_KERNELS_CROSS_ENTROPY_H_
#define SHARDPROOF_LAYERS_KERNELS_CROSS_ENTROPY_H_

#include <cstdint>

#include "reference/dtype.h"
#include "reference/status.h"

namespace shardproof {

struct CrossEntropyShape {
  DType dtype = DType::kF32;  // Of the logits.
  int64_t tokens = 0;
  int64_t columns = 0;  // Of a row of logits here, padding included.
  int64_t valid = 0;    // How many of them count.
  int64_t begin = 0;    // The id of the first.
  int64_t vocabulary = 1;
  int64_t ignore_index = -100;
  double smoothing = 0;
};

// How many columns share one maximum, for bounds: sums are rescaled at most once
// for each block of so many.
inline constexpr int64_t kCrossEntropyBlock = 2048;

// local_max [tokens], -inf without columns; sums [2 tokens]: of exp(x -
// local_max), and, where there is smoothing, of x - local_max. Zeros for tokens
// that do not count.
Status CrossEntropyLocal(const CrossEntropyShape& shape, const void* logits,
                         const int64_t* targets, void* local_max, void* sums);

// sums [2 tokens]: this rank's terms of S and of the sum of q (x - max).
Status CrossEntropyRescale(const CrossEntropyShape& shape, const void* logits,
                           const int64_t* targets, const void* local_max,
                           const void* max, void* sums);

// loss [tokens], 0 where a token does not count; returns their sum, added in
// f64. The first half of `sums` becomes 1 / S.
StatusOr<double> CrossEntropyLoss(const CrossEntropyShape& shape,
                                  const int64_t* targets, void* sums,
                                  void* loss);

// dlogits, which may be `logits`. `upstream` has one element, or, if per_token,
// one for each token; w is that divided by `count`.
struct CrossEntropyUpstream {
  const void* upstream = nullptr;
  bool per_token = false;
  double count = 1;
};
Status CrossEntropyGradient(const CrossEntropyShape& shape, const void* logits,
                            const int64_t* targets, const void* max,
                            const void* inverse_sums,
                            const CrossEntropyUpstream& upstream,
                            void* dlogits);

}  // namespace shardproof

#endif  // SHARDPROOF_LAYERS_KERNELS_CROSS_ENTROPY_H_
