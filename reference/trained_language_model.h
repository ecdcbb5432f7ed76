// A small language model, trained on one device with the whole batch.
//
// Contract, for ids and targets [sequences, length], of which targets of
// kIgnoredTarget do not count, and L blocks (trained_block.h):
//
//     x_0     = table[ids] (+ positions[0 .. length))
//     x_{l+1} = block_l(x_l)                z = norm(x_L)
//     logits  = z head^T                    tied: head is table
//     loss_i  = lse(logits_i) - logits_i[target_i]
//
// and then one step of an optimizer (optimizer.h) on all parameters, with the
// gradient of the SUM of loss_i, and the factor 1 / (targets that count). That
// of a tied table is the sum of both its uses. Parameters lie in this order, all
// of them row-major:
//
//     table [vocabulary, hidden]   positions [length, hidden]
//     block0_norm1_w ... block1_norm1_w ...  as trained_block.h has them
//     norm_w [norm_b]   head [vocabulary, hidden], unless tied
//
// Bounds: those of probes (probe.h) and no others; without, they are infinite.
// What is made at random in a probe: all roundings of trained_block.h and
// trained_parameters.h, of the embedding, the norm and the head, and of
// cross_entropy_row.h. The mean of losses is added in double and delivered in
// the accumulator's type.
//
// What may then be claimed: what probe.h says, first order in the roundings. In
// f64 results here are rounded much as those under test are (with twice the
// digits only in sums of products): what is compared has at most twice the
// variance that probes see, which multiplies the probability of refusing a right
// result by less than 2^(K / 2), K the number of probes (4 for 4). f32 and f64
// only, for the reason that trained_block.h gives.
//
// Mixtures of experts: a choice that roundings could change has no right answer,
// and a probe that chooses otherwise has deviations of another model. So every
// choice must be clear by config.least_gap, in every evaluation, or Step
// refuses; whether that was enough for some inputs, RoutingMargin says.
//
//     TrainedLanguageModelReference r({.blocks = 2, .vocabulary = 29, ...},
//                                     initial);
//     SP_RETURN_IF_ERROR(r.Step(ids, targets));
//     r.loss(); r.parameters();
#ifndef SHARDPROOF_REFERENCE_TRAINED_LANGUAGE_MODEL_H_
#define SHARDPROOF_REFERENCE_TRAINED_LANGUAGE_MODEL_H_

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "reference/bounded.h"
#include "reference/dtype.h"
#include "reference/optimizer.h"
#include "reference/status.h"
#include "reference/tensor.h"
#include "reference/trained_block.h"
#include "reference/trained_parameters.h"

namespace shardproof {

inline constexpr int64_t kIgnoredTarget = -100;

struct LanguageModelConfig {
  int blocks = 2;
  int64_t vocabulary = 0;
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
  bool bias = false;      // Of all projections in blocks; a head has none.
  bool tied = false;
  bool learned_positions = false;
  int64_t experts = 0;  // 0: mlps.
  int64_t top_k = 0;
  // How clear a choice of experts must be: by how many unit roundoffs of the
  // accumulator the logits of what is chosen must exceed the others.
  double least_gap = 256;
  DType dtype = DType::kF32;
  OptimizerSettings optimizer = {};

  TrainedBlockConfig block() const;
};

struct LanguageModelParameter {
  std::string name;
  Shape shape;
  int64_t begin = 0;  // In the flat list.

  int64_t end() const { return begin + shape.NumElements(); }
};
// In order.
std::vector<LanguageModelParameter> LanguageModelParameters(
    const LanguageModelConfig& config);
// How many numbers they are.
int64_t LanguageModelSize(const LanguageModelConfig& config);

class TrainedLanguageModelReference {
 public:
  // `initial`: all parameters, representable in dtype.
  TrainedLanguageModelReference(const LanguageModelConfig& config,
                                std::span<const double> initial);

  // Both passes and the optimizer's step. kInvalidArgument, and no step, for an
  // id or a target outside of the vocabulary, for tokens that are not whole
  // sequences, or where a choice of experts is not clear.
  Status Step(std::span<const int64_t> ids, std::span<const int64_t> targets);

  // All with infinite bounds. Of the last step: the mean of the losses that
  // count, 0 where none does; the gradient of their sum; and the norm of what it
  // became by the factor, before clipping.
  Bounded loss() const { return loss_; }
  const std::vector<Bounded>& gradient() const { return trained_.gradient(); }
  Bounded norm() const { return trained_.norm(); }
  std::vector<Bounded> parameters() const { return trained_.parameters(); }

  // Of all steps so far, by blocks and tokens: TrainedBlock's.
  const std::vector<int32_t>& choices() const { return choices_; }
  const std::vector<double>& gaps() const { return gaps_; }

 private:
  struct Pass;
  Status Check(std::span<const int64_t> ids,
               std::span<const int64_t> targets) const;
  // None where the model does not have it.
  std::optional<ConstTensorView> Find(const Pass& pass,
                                      std::string_view name) const;
  ConstTensorView Head(const Pass& pass) const;
  NormWeights Norm(const Pass& pass) const;
  Status Forward(Pass& pass) const;
  Status Blocks(Tensor x, Pass& pass) const;
  void CrossEntropy(Pass& pass) const;
  StatusOr<std::vector<Bounded>> Backward(Pass& pass) const;

  LanguageModelConfig config_;
  std::vector<LanguageModelParameter> order_;
  TrainedParameters trained_;
  Bounded loss_;
  std::vector<int32_t> choices_;
  std::vector<double> gaps_;
};

// The smallest gap between chosen experts and others, each over its own
// deviation, which probes estimate: no choice is in doubt if this exceeds
// ProbedLambda(Lambda(exact.gaps().size()), probes). 0 where a probe chose
// otherwise, infinite without mixtures.
double RoutingMargin(const TrainedLanguageModelReference& exact,
                     std::span<const TrainedLanguageModelReference> probed);

}  // namespace shardproof

#endif  // SHARDPROOF_REFERENCE_TRAINED_LANGUAGE_MODEL_H_
