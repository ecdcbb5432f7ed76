// A model for data-parallel training: blocks of a transformer one after
// another, nothing between, each with its parameters in one flat piece.
//
//     x_{l+1} = block_l(x_l)        x_0 = x [tokens, hidden], dy_L = dy given
//
// The parameters of a block, and their gradients, lie in the order of use,
//
//     norm1_w [norm1_b] w_qkv [b_qkv] w_out [b_out]
//     norm2_w [norm2_b] [w_gate] w_up [b_up] w_down [b_down]
//
// so that whoever shards, gathers or reduces them needs to know of no shapes. A
// rank's sequences are cut into micro-batches by BalancedChunk; some of those
// may be empty. A block is not tensor-parallel here: every replica computes with
// all of it.
//
//     SP_ASSIGN_OR_RETURN(TransformerStack model, TransformerStack::Create(
//         alone, {.block = {.length = 512, .hidden = 768, ...}, .layers = 12,
//                 .sequences = 7, .micro_batches = 3}));
//     model.SetBatch(x, dy);
//     for (l ascending) model.Forward(micro, l, block_l);
//     for (l descending) {
//       model.Backward(micro, l, block_l, gradient_l, micro > 0);
//     }
//
// A block's backward pass writes its gradients; those of later micro-batches
// are made aside and added.
#ifndef SHARDPROOF_LAYERS_TRANSFORMER_TRAINING_TRANSFORMER_STACK_H_
#define SHARDPROOF_LAYERS_TRANSFORMER_TRAINING_TRANSFORMER_STACK_H_

#include <cstdint>
#include <string>
#include <vector>

#include "collectives/chunks.h"
#include "collectives/communicator.h"
#include "layers/transformer_block/transformer_block.h"
#include "layers/zero/zero.h"
#include "reference/status.h"
#include "reference/tensor.h"

namespace shardproof {

// A parameter of a block and where it lies among the block's.
struct BlockParameter {
  std::string name;  // As above.
  Shape shape;
  int64_t begin = 0;
};
std::vector<BlockParameter> BlockParametersOf(const TransformerBlockConfig& c);
// The parts of a block, all or a rank's, whose parameters lie at `flat`.
TransformerBlockWeights PartsOfBlock(const std::vector<BlockParameter>& all,
                                     DType dtype, const void* flat);
TransformerBlockGradients PartsOfBlock(const std::vector<BlockParameter>& all,
                                       DType dtype, void* flat);
// Elements of all of them.
int64_t BlockSize(const TransformerBlockConfig& block);

struct TransformerStackConfig {
  TransformerBlockConfig block = {};  // Its `sequences` is ignored.
  int layers = 1;
  int64_t sequences = 0;  // Of this rank, in a step.
  int micro_batches = 1;

  // Tokens of a micro-batch.
  int64_t TokensOf(int micro) const {
    return block.length * BalancedChunk(sequences, micro_batches, micro).count;
  }
};

class TransformerStack : public ZeroModel {
 public:
  // `alone`: a communicator of this rank only. kInvalidArgument for another,
  // for a negative size or no micro-batch; errors of TransformerBlock;
  // kOutOfMemory. All memory is asked for here.
  static StatusOr<TransformerStack> Create(
      const Communicator& alone, const TransformerStackConfig& config);

  // Of the next step: [sequences * length, hidden] each.
  void SetBatch(const void* x, const void* dy) {
    x_ = x;
    dy_ = dy;
  }

  Status Forward(int micro, size_t layer, const void* parameters) override;
  // Zeros of an empty micro-batch, or nothing more.
  Status Backward(int micro, size_t layer, const void* parameters,
                  void* gradients, bool accumulate) override;

 private:
  explicit TransformerStack(const TransformerStackConfig& config)
      : config_(config) {}
  // The block of that layer for so many sequences.
  TransformerBlock& BlockOf(int micro, size_t layer);
  int64_t SequencesOf(int micro) const {
    return BalancedChunk(config_.sequences, config_.micro_batches, micro).count;
  }
  // x_l of a micro-batch, and dy_{l+1}.
  const void* Input(int micro, size_t layer) const;
  const void* OutputGradient(int micro, size_t layer) const;
  const void* BatchPart(const void* batch, int micro) const;

  TransformerStackConfig config_;
  std::vector<BlockParameter> parameters_;
  int64_t size_ = 0;
  // By layer, for the larger micro-batches and the smaller ones, where there
  // are such.
  std::vector<TransformerBlock> larger_, smaller_;
  const void* x_ = nullptr;
  const void* dy_ = nullptr;
  // Of one micro-batch: x_{l+1} and dy_l of each layer l.
  std::vector<Tensor> outputs_, input_gradients_;
  Tensor aside_;  // A block's gradients, before they are added.
};

}  // namespace shardproof

#endif  // SHARDPROOF_LAYERS_TRANSFORMER_TRAINING_TRANSFORMER_STACK_H_
