// The arithmetic of host collectives: fold several arrays into one, on one
// core, as fast as memory allows.
//
//     destination[d][i] = (scale_0 source[0][i]) op (scale_1 source[1][i]) op
//     ... / divisor      for every d, i in [0, count)
//
// folded from left to right in the order given, so that ranks that fold in the
// same order hold the same bits.
//
//     const void* sources[] = {a, b};
//     void* destinations[] = {y};
//     kernels::Reduce(DType::kF32, ReduceOp::kSum, sources, n, destinations);
//
// Arithmetic: bf16, f16, e4m3 and e5m2 accumulate in f32 and are rounded once,
// at the end; f32 in f32; f64 in f64; integers in their own width, wrapping.
// min and max propagate NaN. Conversions round to nearest even, bitwise as in
// reference/dtype.h. Vectorised with Highway; the instruction set is chosen at
// run time.
#ifndef SHARDPROOF_COLLECTIVES_KERNELS_REDUCE_H_
#define SHARDPROOF_COLLECTIVES_KERNELS_REDUCE_H_

#include <cstdint>
#include <span>

#include "collectives/kernels/streaming.h"
#include "reference/dtype.h"
#include "reference/reduce_op.h"

namespace shardproof::kernels {

struct ReduceOptions {
  // Empty, or one factor per source. Converted to the accumulator's type (to
  // int64, truncating, for integers).
  std::span<const double> scales = {};
  // The result is divided by this: truly for floating point (not multiplied by
  // a reciprocal), towards zero for integers.
  int64_t divisor = 1;
  Walk walk = {};
};

// Folds `sources` (at least one) and stores the result to all `destinations`
// (at least one). kAvg and kPremulSum fold as kSum: the division and the
// factors are what `options` says, at any operation. A destination may be one
// of the sources (the same address); any other overlap is an error of the
// caller. Arrays are aligned to their element, no more.
void Reduce(DType dtype, ReduceOp op, std::span<const void* const> sources,
            int64_t count, std::span<void* const> destinations,
            const ReduceOptions& options = {});

// accumulator[i] = accumulator[i] op source[i], rounded to dtype: one step of
// an algorithm whose partial results travel in dtype.
void ReduceInto(DType dtype, ReduceOp op, void* accumulator, const void* source,
                int64_t count);

}  // namespace shardproof::kernels

#endif  // SHARDPROOF_COLLECTIVES_KERNELS_REDUCE_H_
