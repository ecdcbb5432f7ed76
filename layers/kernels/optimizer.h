// The element-wise loops of an optimizer step, each one pass over memory.
//
//     SquareSum s;
//     AddSquares(stream, DType::kBF16, n, gradient, &s);   // s.sum += sum g^2
//     AdamStep(stream, {.n = n, .parameter = w, ...});     // w, m, v in place
//
// Weights and moments are computed on in f32 (f64 for f64). Where parameters are
// bf16 or f16, `master` holds the weights in f32 and the parameter is the
// master rounded; else the parameter is the master. Formulas and sources:
// reference/optimizer.h.
#ifndef SHARDPROOF_LAYERS_KERNELS_OPTIMIZER_H_
#define SHARDPROOF_LAYERS_KERNELS_OPTIMIZER_H_

#include <cstdint>

#include "collectives/device.h"
#include "reference/dtype.h"
#include "reference/status.h"

namespace shardproof {

// Squares are exact in f64 for f32 and narrower, and sums are added in f64, in
// an order that depends on n and the machine only.
struct SquareSum {
  double sum = 0;
  bool finite = true;  // Whether every element was.
};

// *total gains n elements of x. Types: f64, f32, bf16, f16.
Status AddSquares(const Stream& stream, DType dtype, int64_t n, const void* x,
                  SquareSum* total);

// What both rules work on. `gradient_dtype` is `dtype` or Accumulator(dtype).
// Nothing may overlap.
struct UpdateTensors {
  int64_t n = 0;
  DType dtype = DType::kF32;  // f64, f32, bf16 or f16.
  DType gradient_dtype = DType::kF32;
  void* parameter = nullptr;
  const void* gradient = nullptr;
  void* master = nullptr;  // bf16 and f16 only.
  void* first = nullptr;   // Momentum; SGD without: null.
  void* second = nullptr;  // Adam only.
};

// g = gradient_scale gradient + coupled_decay w; m = momentum m + g;
// w -= learning_rate m.
struct SgdArgs {
  UpdateTensors tensors;
  double gradient_scale = 1;
  double learning_rate = 0;
  double momentum = 0;
  double coupled_decay = 0;
};
// kUnsupported for the types; kInvalidArgument for momentum without a moment.
Status SgdStep(const Stream& stream, const SgdArgs& args);

// g = gradient_scale gradient + coupled_decay w; m = beta1 m + (1 - beta1) g;
// v = beta2 v + (1 - beta2) g^2;
// w = shrink w - step_size m / (second_scale sqrt(v) + epsilon).
struct AdamArgs {
  UpdateTensors tensors;
  double gradient_scale = 1;
  double beta1 = 0, beta2 = 0;
  double epsilon = 0;
  double step_size = 0;     // rate / (1 - beta1^t).
  double second_scale = 1;  // 1 / sqrt(1 - beta2^t).
  double coupled_decay = 0;
  double shrink = 1;  // 1 - rate * decay, where decay is decoupled.
};
Status AdamStep(const Stream& stream, const AdamArgs& args);

// master[i] = parameter[i], exactly: n elements of `dtype` to Accumulator(dtype).
Status WidenParameters(const Stream& stream, DType dtype, int64_t n,
                       const void* parameter, void* master);

}  // namespace shardproof

#endif  // SHARDPROOF_LAYERS_KERNELS_OPTIMIZER_H_
