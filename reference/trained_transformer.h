// Blocks of a transformer one after another, trained on one device with the
// whole batch.
//
// Contract, for B blocks (transformer_block.h), x_0 = x [tokens, hidden] and
// dy_B = dy, tokens in whole sequences:
//
//     x_{l+1} = block_l(x_l)              dy_l, dw_l = block_l's backward pass
//
// and then one step of an optimizer (optimizer.h) on all weights. The
// parameters of a block lie in the order of use, those of block 0 first:
//
//     norm1_w [norm1_b] w_qkv [b_qkv] w_out [b_out]
//     norm2_w [norm2_b] [w_gate] w_up [b_up] w_down [b_down]
//
// LayerNorm has a bias, SwiGLU a gate.
//
// Bounds: those of probes (probe.h) and no others; without, they are infinite.
// Certain ones are multiplied by every product of every step, and after 20
// steps would let anything pass. What is made at random in a probe: all
// roundings that transformer_block.h declares; one more of each gradient, which
// may be divided; the roundings of the optimizer; and of the constants of its
// step, which are computed in double, 8 in all that a weight has moved. What is
// returned, and where the next gradient is taken, has 64 roundings of doubles
// more, so that in f64 a probe's own doubles are fine enough to show what it
// rounds: a last place is then an eighth of a deviation.
//
// f32 and f64 only: there a gradient that is summed in parts, micro-batch by
// micro-batch and rank by rank, is stored as it is accumulated, so that parts
// are but another order of one sum over all tokens, and n roundings of its n
// terms hold for any order.
//
// What may then be claimed: what probe.h says, first order in the roundings. In
// f64 results here are rounded much as those under test are (with twice the
// digits only in sums of products): what is compared has at most twice the
// variance that probes see, which multiplies the probability of refusing a
// right result by less than 2^(K / 2), K the number of probes (4 for 4).
//
//     TrainedTransformerReference r({.hidden = 8, .heads = 2, ...}, initial);
//     r.Step(x, dy, 1.0 / tokens);
//     r.parameters(); r.norm();
//
// Rejected: Bounded weights in the blocks' references. Every product would
// carry two errors in place of one, and the bounds would be of no use all the
// same.
#ifndef SHARDPROOF_REFERENCE_TRAINED_TRANSFORMER_H_
#define SHARDPROOF_REFERENCE_TRAINED_TRANSFORMER_H_

#include <cstdint>
#include <span>
#include <vector>

#include "reference/bounded.h"
#include "reference/dtype.h"
#include "reference/optimizer.h"
#include "reference/transformer_block.h"

namespace shardproof {

struct TrainedTransformerConfig {
  int blocks = 2;
  int64_t length = 0;  // Tokens of a sequence.
  int64_t hidden = 0;
  int64_t heads = 0;
  int64_t kv_heads = 0;
  int64_t head_dim = 0;
  int64_t intermediate = 0;
  NormKind norm = NormKind::kLayerNorm;
  double epsilon = 1e-5;
  Activation activation = Activation::kGeluTanh;
  double rope_theta = 0;  // 0: no rotary embedding.
  bool bias = false;      // Of all projections.
  DType dtype = DType::kF32;
  OptimizerSettings optimizer = {};

  // Of one block.
  int64_t parameters() const;
};

class TrainedTransformerReference {
 public:
  // `initial`: the parameters of all blocks, representable in dtype.
  TrainedTransformerReference(const TrainedTransformerConfig& config,
                              std::span<const double> initial);

  // Both passes of x and dy, [tokens, hidden] each, and the optimizer's step,
  // with its `factor`.
  void Step(std::span<const double> x, std::span<const double> dy,
            double factor = 1);

  // All with infinite bounds. Of the last step: its gradient, before `factor`,
  // and the norm that it was clipped by.
  const std::vector<Bounded>& gradient() const { return gradient_; }
  Bounded norm() const;
  std::vector<Bounded> parameters() const;

 private:
  std::vector<Bounded> GradientOf(std::span<const double> x,
                                  std::span<const double> dy,
                                  std::span<const double> parameters) const;

  TrainedTransformerConfig config_;
  OptimizerReference optimizer_;
  std::vector<double> moved_;  // By each parameter, all steps added up.
  std::vector<Bounded> gradient_;
};

}  // namespace shardproof

#endif  // SHARDPROOF_REFERENCE_TRAINED_TRANSFORMER_H_
