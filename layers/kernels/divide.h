// x[i] = x[i] / divisor: how a summed gradient becomes an average.
//
// Computed in f32 (f64 for f64) and rounded to the type of x. A division and
// not a product with 1 / divisor: it rounds once less, and integers that are
// multiples of the divisor stay exact.
//
//     Divide(stream, DType::kF32, n, gradient, /*divisor=*/tokens);
#ifndef SHARDPROOF_LAYERS_KERNELS_DIVIDE_H_
#define SHARDPROOF_LAYERS_KERNELS_DIVIDE_H_

#include <cstdint>

#include "collectives/device.h"
#include "reference/dtype.h"
#include "reference/status.h"

namespace shardproof {

// `x` is n elements of `dtype`, one of f64, f32, bf16, f16, else kUnsupported.
// The divisor is first rounded to the type that computes.
Status Divide(const Stream& stream, DType dtype, int64_t n, void* x,
              double divisor);

}  // namespace shardproof

#endif  // SHARDPROOF_LAYERS_KERNELS_DIVIDE_H_
