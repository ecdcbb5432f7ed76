// Optimizer steps on one device: plain and momentum gradient descent, Adam and
// AdamW, with clipping by the global norm and dynamic loss scaling, in double
// and with bounds.
//
// Contract, for all elements of a model together, with weights w, gradients G
// that were scaled by the loss scale S, and step number t = 1, 2, ...:
//
//     g    = f G / S                     f: a factor of the caller (1 / tokens)
//     norm = sqrt(sum of g^2)            c = min(1, max_norm / (norm + 1e-6))
//     a G that is not finite: nothing changes but S, and t is not counted
//
//     SGD    g' = c g + decay w          AdamW  g' = c g
//            m  = momentum m + g'               m  = beta1 m + (1 - beta1) g'
//            w  = w - rate m                    v  = beta2 v + (1 - beta2) g'^2
//                                               w  = w (1 - rate decay)
//     Adam   g' = c g + decay w                    - rate / (1 - beta1^t)
//            else as AdamW, undecayed                m / (sqrt(v / (1 - beta2^t)) + epsilon)
//
// w, m and v are kept in Accumulator(dtype); what the model computes with is w
// rounded to its own type. S grows by `growth` after `growth_interval` steps
// without overflow and shrinks by `backoff` at each overflow.
//
// Sources: Kingma and Ba, arXiv:1412.6980, algorithm 1; Loshchilov and Hutter,
// arXiv:1711.05101, algorithm 2; Pascanu et al., arXiv:1211.5063 (clipping);
// Micikevicius et al., arXiv:1710.03740, sections 3.1 and 3.2 (master weights,
// loss scaling); the order of operations is that of PyTorch's SGD, Adam, AdamW,
// clip_grad_norm_ and GradScaler.
//
//     OptimizerReference r(settings, DType::kBF16, initial);
//     r.Step(gradients);        // one Bounded per element, each element once
//     r.weights(); r.parameters(); r.norm();
#ifndef SHARDPROOF_REFERENCE_OPTIMIZER_H_
#define SHARDPROOF_REFERENCE_OPTIMIZER_H_

#include <cstdint>
#include <optional>
#include <span>
#include <string_view>
#include <vector>

#include "reference/bounded.h"
#include "reference/dtype.h"

namespace shardproof {

enum class OptimizerRule : uint8_t { kSgd, kAdam, kAdamW };
// "sgd", "adam", "adamw".
std::string_view Name(OptimizerRule rule);

// Dynamic loss scaling, with the defaults of PyTorch's GradScaler.
struct LossScaling {
  double initial = 65536;
  double growth = 2;
  double backoff = 0.5;
  int64_t growth_interval = 2000;
};

struct OptimizerSettings {
  OptimizerRule rule = OptimizerRule::kAdamW;
  double learning_rate = 1e-3;
  double momentum = 0;  // SGD; 0: no moment is kept.
  double beta1 = 0.9;   // Adam and AdamW, and what follows.
  double beta2 = 0.999;
  double epsilon = 1e-8;
  double weight_decay = 0;
  // None: the norm is not computed. Infinite: computed, and nothing is clipped.
  std::optional<double> max_norm = std::nullopt;
  double clip_epsilon = 1e-6;
  // None: gradients come unscaled, and what is not finite is not looked for.
  std::optional<LossScaling> loss_scaling = std::nullopt;

  bool HasFirstMoment() const {
    return rule != OptimizerRule::kSgd || momentum != 0;
  }
  bool HasSecondMoment() const { return rule != OptimizerRule::kSgd; }
};

// The loss scale from step to step.
class LossScale {
 public:
  explicit LossScale(const std::optional<LossScaling>& scaling)
      : scaling_(scaling), value_(scaling.has_value() ? scaling->initial : 1) {}
  // 1 without scaling.
  double value() const { return value_; }
  // After a step that did or did not overflow. The scale does not grow beyond
  // what f32 holds.
  void Update(bool overflow);

 private:
  std::optional<LossScaling> scaling_;
  double value_;
  int64_t tracker_ = 0;  // Steps since the last change.
};

class OptimizerReference {
 public:
  // `initial`: what the model holds at first, exactly.
  OptimizerReference(const OptimizerSettings& settings, DType dtype,
                     std::span<const double> initial);

  // One step with gradients that already carry the loss scale.
  void Step(std::span<const Bounded> gradients, double factor = 1);

  const std::vector<Bounded>& weights() const { return weights_; }
  const std::vector<Bounded>& first() const { return first_; }
  const std::vector<Bounded>& second() const { return second_; }
  // The weights in the model's own type.
  std::vector<Bounded> parameters() const;
  // Of the last step: before clipping, and whether it was left out.
  const Bounded& norm() const { return norm_; }
  bool skipped() const { return skipped_; }
  double loss_scale() const { return scale_.value(); }
  int64_t steps() const { return steps_; }

 private:
  // c f / S, as it is rounded to the type of the weights.
  Bounded Multiplier(double factor);
  void UpdateElement(const Bounded& gradient, size_t i);
  Bounded Rounded(const Bounded& x) const;
  Bounded Constant(double value) const;

  OptimizerSettings settings_;
  DType dtype_, computed_;
  std::vector<Bounded> weights_, first_, second_;
  LossScale scale_;
  Bounded norm_;
  bool skipped_ = false;
  int64_t steps_ = 0;
};

}  // namespace shardproof

#endif  // SHARDPROOF_REFERENCE_OPTIMIZER_H_
