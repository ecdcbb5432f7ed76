// LayerNorm and RMSNorm of the rows of a matrix, and their gradients.
//
//     z = x + residual                  x itself where there is no residual
//     m = mean(z), v = mean((z - m)^2)  m = 0 unless centred
//     r = 1 / sqrt(v + epsilon)         n = (z - m) r
//     y = n weight + bias
//
//     g = dy weight,  p = mean(g) (0 unless centred),  q = mean(g n)
//     dx = r (g - p - n q) + dz
//     dweight = sum over rows of dy n,  dbias = sum over rows of dy
//
// computed in f32 (f64 for f64), the variance in a second pass, and rounded
// once; z is rounded before it is normalised, since that is what the backward
// pass reads. A row is read once from memory as long as it fits into the cache
// (backward: four rows of z and dy). Sums over rows ascend. Types: f64, f32,
// bf16, f16. Sources: Ba, Kiros and Hinton, arXiv:1607.06450; Zhang and
// Sennrich, arXiv:1910.07467.
#ifndef SHARDPROOF_LAYERS_KERNELS_NORM_H_
#define SHARDPROOF_LAYERS_KERNELS_NORM_H_

#include <cstdint>

#include "collectives/device.h"
#include "reference/dtype.h"
#include "reference/status.h"

namespace shardproof {

// What both passes have in common. `mean` and `inverse` are [rows], of
// Accumulator(dtype); `mean` may be null unless centred.
struct NormRows {
  DType dtype = DType::kF32;
  int64_t rows = 0;
  int64_t columns = 0;
  bool centred = true;
  double epsilon = 1e-5;
};

struct NormalizeArgs {
  const void* x = nullptr;         // [rows, columns]
  const void* residual = nullptr;  // [rows, columns], or null
  const void* weight = nullptr;    // [columns]
  const void* bias = nullptr;      // [columns], or null
  void* z = nullptr;               // [rows, columns]; with a residual
  void* y = nullptr;               // [rows, columns]; may be x, not z
  void* mean = nullptr;
  void* inverse = nullptr;
};

// kUnsupported for other types.
Status Normalize(const Stream& stream, const NormRows& rows,
                 const NormalizeArgs& args);

struct NormalizeBackwardArgs {
  const void* z = nullptr;
  const void* weight = nullptr;
  const void* dy = nullptr;
  const void* dz = nullptr;  // What else arrives at z; or null.
  const void* mean = nullptr;
  const void* inverse = nullptr;
  void* dx = nullptr;  // May be dy or dz.
  // [columns] of Accumulator(dtype), so that ranks can add them up before they
  // are rounded; dbias may be null.
  void* dweight = nullptr;
  void* dbias = nullptr;
};

Status NormalizeBackward(const Stream& stream, const NormRows& rows,
                         const NormalizeBackwardArgs& args);

// out[i] = sums[i], rounded from Accumulator(dtype) to `dtype`.
Status RoundSums(const Stream& stream, DType dtype, int64_t n, const void* sums,
                 void* out);

}  // namespace shardproof

#endif  // SHARDPROOF_LAYERS_KERNELS_NORM_H_
