// Blocks of a transformer one after another, trained on one device with the
// whole batch.
//
// Contract, for B blocks (transformer_block.h), x_0 = x [tokens, hidden] and
// dy_B = dy, tokens in whole sequences:
//
//     x_{l+1} = block_l(x_l)              dy_l, dw_l = block_l's backward pass
//
// and then one step of an optimizer (optimizer.h) on all weights. Those of a
// block lie as trained_block.h has them, those of block 0 first.
//
// Bounds: those of probes (probe.h) and no others; without, they are infinite.
// What is made at random in a probe: all roundings of trained_block.h and of
// trained_parameters.h, which also say why f32 and f64 are all there is, and why
// there are no other bounds.
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
#include "reference/trained_parameters.h"
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
  const std::vector<Bounded>& gradient() const { return trained_.gradient(); }
  Bounded norm() const { return trained_.norm(); }
  std::vector<Bounded> parameters() const { return trained_.parameters(); }

 private:
  std::vector<Bounded> GradientOf(std::span<const double> x,
                                  std::span<const double> dy) const;

  TrainedTransformerConfig config_;
  TrainedParameters trained_;
};

}  // namespace shardproof

#endif  // SHARDPROOF_REFERENCE_TRAINED_TRANSFORMER_H_
