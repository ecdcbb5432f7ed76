// Dropout: a mask that is a function of (seed, call, index), and is made anew
// whenever it is needed.
//
//     y[i, j] = word(first + i row_stride + j) >= round(p 2^32)
//                   ? x[i, j] / (1 - p) : 0
//
// with word() as in reference/dropout.h: Philox4x32-10, four elements of the
// whole tensor per counter. `first` and `row_stride` say where in the whole
// tensor these rows lie, so that a rank that has a part of it draws for that
// part. The backward pass is the same function of dy. Computed in f32 (f64 for
// f64) with one rounding for the scale and one for the product; dropped
// elements are +0 whatever they were. Types: f64, f32, bf16, f16.
#ifndef SHARDPROOF_LAYERS_KERNELS_DROPOUT_H_
#define SHARDPROOF_LAYERS_KERNELS_DROPOUT_H_

#include <cstdint>

#include "collectives/device.h"
#include "reference/dtype.h"
#include "reference/status.h"

namespace shardproof {

struct DropoutArgs {
  DType dtype = DType::kF32;
  int64_t rows = 0;
  int64_t columns = 0;
  uint64_t first = 0;      // Index of x[0, 0] in the whole tensor,
  int64_t row_stride = 0;  // and how much further x[1, 0] lies.
  double probability = 0;  // 0 <= p < 1
  uint64_t seed = 0;
  uint64_t call = 0;
  const void* x = nullptr;
  void* y = nullptr;  // May be x.
};

// kInvalidArgument for the probability, kUnsupported for other types.
Status Dropout(const Stream& stream, const DropoutArgs& args);

namespace kernels {

// The four words of each of the counters (counter + k low, high, call low,
// high), k < counters, with the key `seed`; words is [4 counters].
void PhiloxWords(uint64_t seed, uint64_t call, uint64_t counter,
                 int64_t counters, uint32_t* words);

}  // namespace kernels
}  // namespace shardproof

#endif  // SHARDPROOF_LAYERS_KERNELS_DROPOUT_H_
