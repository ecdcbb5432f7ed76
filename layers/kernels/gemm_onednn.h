// The products that oneDNN makes, over strides.
#ifndef SHARDPROOF_LAYERS_KERNELS_GEMM_ONEDNN_H_
#define SHARDPROOF_LAYERS_KERNELS_GEMM_ONEDNN_H_

#include <cstdint>

#include "reference/dtype.h"
#include "reference/status.h"

namespace shardproof::kernels {

// Element (i, j) is number i * row + j * column; one of the strides is 1.
template <class Pointer>
struct Strided {
  Pointer data = nullptr;
  int64_t row = 0;
  int64_t column = 1;
};

// Whether the CPU multiplies operands of this type as they are, adding up in
// f32: f32 always, bf16 with AVX512-BF16 or AMX.
bool HasNativeProduct(DType dtype);

// C = A B, or C += A B, or C = A B + bias, on the calling thread; sums in f32,
// rounded once to `dtype`, of which all operands are. m, n, k > 0 and
// HasNativeProduct(dtype).
Status GemmOneDnn(DType dtype, int64_t m, int64_t n, int64_t k,
                  Strided<const void*> a, Strided<const void*> b,
                  Strided<void*> c, bool accumulate, const void* bias);

}  // namespace shardproof::kernels

#endif  // SHARDPROOF_LAYERS_KERNELS_GEMM_ONEDNN_H_
