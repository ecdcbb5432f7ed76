// Softmax along rows, scaled and masked, and its derivative: the middle of
// attention.
//
//     x_j  = scale s_j                       for the columns that the row sees
//     p_j  = exp(x_j - max x) / sum over k of exp(x_k - max x)
//     ds_j = scale p_j (dp_j - sum over k of p_k dp_k)
//
// A causal row i sees the columns j <= i + diagonal; the others have p = 0 and
// ds = 0, and so has a row that sees none. Scores are of the accumulator's type
// (f32, or f64 for f64), which everything is computed in; probabilities are
// rounded once to their own. What the derivative is given are the rounded ones.
//
// A NaN among the scores that a row sees makes its whole row NaN, and so does
// +infinity.
#ifndef SHARDPROOF_LAYERS_KERNELS_SOFTMAX_H_
#define SHARDPROOF_LAYERS_KERNELS_SOFTMAX_H_

#include <cstdint>

#include "collectives/device.h"
#include "reference/dtype.h"
#include "reference/status.h"

namespace shardproof {

struct SoftmaxShape {
  DType dtype = DType::kF32;  // Of the probabilities: f64, f32, bf16 or f16.
  int64_t rows = 0;
  int64_t columns = 0;
  double scale = 1;
  bool causal = false;
  int64_t diagonal = 0;
};

// s: [rows, columns] of Accumulator(dtype), used up. p: [rows, columns] of
// dtype; may be s where these types are one.
Status Softmax(const Stream& stream, const SoftmaxShape& shape, void* s,
               void* p);

// dp and ds: [rows, columns] of Accumulator(dtype); ds may be dp.
Status SoftmaxBackward(const Stream& stream, const SoftmaxShape& shape,
                       const void* p, const void* dp, void* ds);

}  // namespace shardproof

#endif  // SHARDPROOF_LAYERS_KERNELS_SOFTMAX_H_
