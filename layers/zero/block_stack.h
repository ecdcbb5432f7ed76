// A model for Zero to train: linear layers one after another, nothing between.
//
//     x_{l+1} = x_l w_l^T + b_l     w_l [widths[l + 1], widths[l]]
//
// Block l is w_l, row-major, and behind it b_l. Gradients are real, and linear in
// what comes from above: sums of products, exact on integers.
//
//     BlockStack model({64, 256, 64}, DType::kF32);
//     model.SetBatch({.tokens = n, .x = x, .dy = dy, .y = y, .dx = dx},
//                    /*micro_batches=*/4);
//     zero.Step(model);
#ifndef SHARDPROOF_LAYERS_ZERO_BLOCK_STACK_H_
#define SHARDPROOF_LAYERS_ZERO_BLOCK_STACK_H_

#include <cstdint>
#include <vector>

#include "layers/zero/zero.h"
#include "reference/dtype.h"
#include "reference/status.h"
#include "reference/tensor.h"

namespace shardproof {

class BlockStack : public ZeroModel {
 public:
  // A rank's tokens of one step, cut into micro-batches by BalancedChunk.
  struct Batch {
    int64_t tokens = 0;
    const void* x = nullptr;   // [tokens, widths.front()]
    const void* dy = nullptr;  // [tokens, widths.back()]
    void* y = nullptr;
    void* dx = nullptr;
  };

  // At least one layer; widths are positive.
  BlockStack(std::vector<int64_t> widths, DType dtype);

  // Makes room for the activations, where there is not enough.
  void SetBatch(const Batch& batch, int micro_batches);
  // The sizes of the blocks.
  std::vector<int64_t> blocks() const;

  Status Forward(int micro, size_t layer, const void* parameters) override;
  Status Backward(int micro, size_t layer, const void* parameters,
                  void* gradients, bool accumulate) override;

 private:
  size_t layers() const { return widths_.size() - 1; }
  Chunk Tokens(int micro) const;
  // x_l of a micro-batch: the batch's, its y, or an activation.
  const void* Input(int micro, size_t layer) const;
  void* Output(int micro, size_t layer);
  // The gradients of those two.
  const void* OutputGradient(int micro, size_t layer) const;
  void* InputGradient(int micro, size_t layer);

  std::vector<int64_t> widths_;
  DType dtype_;
  Batch batch_;
  int micro_batches_ = 1;
  // Of one micro-batch: inputs of layers 1, 2, ..., and their gradients.
  std::vector<Tensor> activations_, gradients_;
  Tensor bias_gradient_;
};

}  // namespace shardproof

#endif  // SHARDPROOF_LAYERS_ZERO_BLOCK_STACK_H_
