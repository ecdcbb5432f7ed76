// A few linear layers, one after the other, whose gradients go to DataParallel
// as they are made: the smallest model with gradients that are real and linear.
// The case, the tests and the benchmark of data parallelism train it.
//
// Contract, for L layers, widths n_0..n_L, and a bias `prefix` that only the
// first k tokens have (so that some ranks do not use it):
//
//     forward    h_0 = x (+ prefix, for tokens that are among the first k)
//                h_(l+1) = h_l w_l^T + b_l                [tokens, n_(l+1)]
//     backward   db_l = sum over tokens of d_(l+1)        d_L = dy
//                dw_l = d_(l+1)^T h_l                     d_l = d_(l+1) w_l
//                dprefix = sum over its tokens of d_0
//
// Parameters are numbered in the order of use: prefix, w_0, b_0, w_1, b_1, ...
// Nothing is sent. The layers of tensor-parallel ranks are made of their own
// widths: of two layers, the first column- and the second row-parallel, no rank
// needs another's numbers to make its gradients from x and dy.
//
//     SP_ASSIGN_OR_RETURN(LinearStack stack, LinearStack::Create(
//         {.widths = {64, 64, 64}, .tokens = 32}));
//     SP_RETURN_IF_ERROR(stack.Forward({x, n, k}, weights));
//     SP_RETURN_IF_ERROR(stack.Backward(dy, weights, gradients));
#ifndef SHARDPROOF_LAYERS_DATA_PARALLEL_LINEAR_STACK_H_
#define SHARDPROOF_LAYERS_DATA_PARALLEL_LINEAR_STACK_H_

#include <cstdint>
#include <functional>
#include <vector>

#include "collectives/device.h"
#include "layers/data_parallel/data_parallel.h"
#include "reference/dtype.h"
#include "reference/status.h"
#include "reference/tensor.h"

namespace shardproof {

struct LinearStackConfig {
  std::vector<int64_t> widths;  // At least two.
  int64_t tokens = 0;           // The most in one micro-batch.
  DType dtype = DType::kF32;    // f64, f32, bf16 or f16.

  int layers() const { return static_cast<int>(widths.size()) - 1; }
  int parameters() const { return 1 + 2 * layers(); }
  // The numbers of the parameters, and their shapes.
  static constexpr int kPrefix = 0;
  static constexpr int Weight(int layer) { return 1 + 2 * layer; }
  static constexpr int Bias(int layer) { return 2 + 2 * layer; }
  Shape ShapeOf(int parameter) const;
  // Their elements, for DataParallelConfig.
  std::vector<int64_t> Counts() const;
};

// A micro-batch: x is [tokens, n_0], of which the first `prefixed` tokens have
// the prefix.
struct LinearStackBatch {
  const void* x = nullptr;
  int64_t tokens = 0;
  int64_t prefixed = 0;
};

// Where gradients go: DataParallel, or whatever stands for it.
struct GradientSink {
  std::function<StatusOr<DataParallel::Target>(int parameter)> open;
  std::function<Status(int parameter)> close;
};
GradientSink SinkOf(DataParallel& gradients);

class LinearStack {
 public:
  // Local. All memory is asked for here. kInvalidArgument for a negative size or
  // fewer than two widths, kUnsupported for the type.
  static StatusOr<LinearStack> Create(const LinearStackConfig& config);

  // weights[i] is parameter i. What Backward needs is kept here.
  Status Forward(const LinearStackBatch& batch,
                 const std::vector<const void*>& weights);
  // dy is [tokens, n_L] of the last Forward. Gradients are opened and closed in
  // the reverse order of use; the prefix only where the batch has it.
  Status Backward(const void* dy, const std::vector<const void*>& weights,
                  const GradientSink& gradients);

  // [tokens, n_L], of the last Forward.
  const void* output() const { return h_.back().raw(); }

 private:
  explicit LinearStack(const LinearStackConfig& config);
  Status BiasGradient(const void* d, int64_t tokens, int parameter,
                      const GradientSink& gradients);

  LinearStackConfig config_;
  LinearStackBatch batch_;
  std::vector<Tensor> h_;  // h_0 to h_L
  Tensor d_, next_d_;      // d_(l+1) and d_l
  Tensor ones_;
};

}  // namespace shardproof

#endif  // SHARDPROOF_LAYERS_DATA_PARALLEL_LINEAR_STACK_H_
