// Matrix products for layers: one call, any floating-point type, no allocation
// in the steady state.
//
//     C[m, n] = op(A)[m, k] op(B)[k, n]  (+ C)  (+ bias[n] in every row)
//
//     Gemm(stream, {.a = x, .b = w, .transpose_b = true, .c = y});   // x w^T
//
// Sums are accumulated in f32 for f32, bf16 and f16, in f64 for f64; the result
// is rounded once to the type of C, with the bias added before that rounding.
#ifndef SHARDPROOF_LAYERS_KERNELS_GEMM_H_
#define SHARDPROOF_LAYERS_KERNELS_GEMM_H_

#include "collectives/device.h"
#include "reference/status.h"
#include "reference/tensor.h"

namespace shardproof {

// Row-major and contiguous. A is [m, k], or [k, m] if transposed; B is [k, n],
// or [n, k] if transposed; C is [m, n]; all of one type, one of f64, f32, bf16,
// f16. A dimension may be 0; k == 0 leaves the bias, or 0.
struct GemmArgs {
  ConstTensorView a;
  bool transpose_a = false;
  ConstTensorView b;
  bool transpose_b = false;
  TensorView c;
  bool accumulate = false;     // C is added to; not together with a bias.
  const void* bias = nullptr;  // n elements of C's type, or none.
};

// kInvalidArgument names the shapes that do not fit; kUnsupported the type.
Status Gemm(const Stream& stream, const GemmArgs& args);

}  // namespace shardproof

#endif  // SHARDPROOF_LAYERS_KERNELS_GEMM_H_
