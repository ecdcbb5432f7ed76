// Storage types to and from the f32 that kernels compute in.
#ifndef SHARDPROOF_LAYERS_KERNELS_CONVERT_H_
#define SHARDPROOF_LAYERS_KERNELS_CONVERT_H_

#include <cstdint>

#include "reference/dtype.h"

namespace shardproof::kernels {

// destination[i] = source[i], exactly. `from`: bf16, f16 or f32.
void Widen(DType from, const void* source, int64_t n, float* destination);

// destination[i] = source[i] (+ addend[i], if given), rounded to nearest even.
// `to`: bf16, f16 or f32; addend is of type `to`.
void Narrow(DType to, const float* source, const void* addend, int64_t n,
            void* destination);

}  // namespace shardproof::kernels

#endif  // SHARDPROOF_LAYERS_KERNELS_CONVERT_H_
