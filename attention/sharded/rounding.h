// From the accumulator's type to that of a tensor.
//
//     RoundTo(DType::kBF16, dq_in_f32, count, dq);
#ifndef SHARDPROOF_ATTENTION_SHARDED_ROUNDING_H_
#define SHARDPROOF_ATTENTION_SHARDED_ROUNDING_H_

#include <cstdint>
#include <cstring>

#include "layers/kernels/convert.h"
#include "reference/dtype.h"

namespace shardproof {

// out[i] = wide[i] of Accumulator(dtype), rounded to nearest even; copied where
// that is dtype itself. `dtype`: f64, f32, bf16 or f16.
inline void RoundTo(DType dtype, const void* wide, int64_t count, void* out) {
  if (count == 0) return;
  if (Accumulator(dtype) == dtype) {
    std::memcpy(out, wide, static_cast<size_t>(count * SizeOf(dtype)));
  } else {
    kernels::Narrow(dtype, static_cast<const float*>(wide), nullptr, count,
                    out);
  }
}

}  // namespace shardproof

#endif  // SHARDPROOF_ATTENTION_SHARDED_ROUNDING_H_
