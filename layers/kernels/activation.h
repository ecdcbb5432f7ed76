// Activation functions and their derivatives, element by element.
//
//     gelu(x)   = x/2 (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3)))
//     silu(x)   = x / (1 + exp(-x))
//     swiglu(g, u) = silu(g) u
//
// computed in f32 (f64 for f64) and rounded once. Types: f64, f32, bf16, f16.
// Sources: Hendrycks and Gimpel, arXiv:1606.08415 (the tanh form); Shazeer,
// arXiv:2002.05202.
#ifndef SHARDPROOF_LAYERS_KERNELS_ACTIVATION_H_
#define SHARDPROOF_LAYERS_KERNELS_ACTIVATION_H_

#include <cstdint>

#include "collectives/device.h"
#include "reference/dtype.h"
#include "reference/status.h"

namespace shardproof {

// All pointers are to n elements of `dtype`; outputs may be the inputs.
// kUnsupported for other types.

// a = gelu(z).
Status Gelu(const Stream& stream, DType dtype, int64_t n, const void* z,
            void* a);
// dz = da gelu'(z).
Status GeluBackward(const Stream& stream, DType dtype, int64_t n, const void* z,
                    const void* da, void* dz);
// a = silu(gate) up.
Status SwiGlu(const Stream& stream, DType dtype, int64_t n, const void* gate,
              const void* up, void* a);
// dgate = da up silu'(gate); dup = da silu(gate). dgate and dup may be gate and
// up.
Status SwiGluBackward(const Stream& stream, DType dtype, int64_t n,
                      const void* gate, const void* up, const void* da,
                      void* dgate, void* dup);

// out[j] = sum over i of x[i, j], i ascending, in f32 (f64 for f64): the
// gradient of a bias. x is [rows, columns]; no rows: zeros.
Status ColumnSum(const Stream& stream, DType dtype, int64_t rows,
                 int64_t columns, const void* x, void* out);

// y[i, j] += b[j]. y is [rows, columns].
Status AddBias(const Stream& stream, DType dtype, int64_t rows, int64_t columns,
               const void* b, void* y);

}  // namespace shardproof

#endif  // SHARDPROOF_LAYERS_KERNELS_ACTIVATION_H_
