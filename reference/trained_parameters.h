// The parameters of a model that is trained in a reference which is probed
// (probe.h): the optimizer's step on them, and what may be said of them after.
//
// Bounds: all infinite, but for what probes say. Certain ones are multiplied by
// every product of every step, and after 20 steps would let anything pass. What
// is made at random in a probe here: the roundings of the optimizer; and of the
// constants of its step, which are computed in double, 8 in all that a weight
// has moved. What is returned, and where the next gradient is taken, has 64
// roundings of doubles more, so that in f64 a probe's own doubles are fine
// enough to show what it rounds: a last place is then an eighth of a deviation.
//
//     TrainedParameters trained(settings, DType::kF32, initial);
//     trained.Step(GradientAt(trained.values()), 1.0 / tokens);
//     trained.parameters(); trained.gradient(); trained.norm();
#ifndef SHARDPROOF_REFERENCE_TRAINED_PARAMETERS_H_
#define SHARDPROOF_REFERENCE_TRAINED_PARAMETERS_H_

#include <span>
#include <vector>

#include "reference/bounded.h"
#include "reference/dtype.h"
#include "reference/optimizer.h"

namespace shardproof {

// With infinite bounds: nothing is known of it unless probes say it.
Bounded Unknown(double value);

class TrainedParameters {
 public:
  // `initial`: representable in dtype.
  TrainedParameters(const OptimizerSettings& settings, DType dtype,
                    std::span<const double> initial);

  // One step of the optimizer, with its `factor`.
  void Step(std::span<const Bounded> gradient, double factor);

  // Of the last step: its gradient, before `factor`, and the norm that it was
  // clipped by.
  const std::vector<Bounded>& gradient() const { return gradient_; }
  Bounded norm() const;
  std::vector<Bounded> parameters() const;
  // The parameters, where the next gradient is to be taken.
  std::vector<double> values() const;

 private:
  OptimizerReference optimizer_;
  std::vector<double> moved_;  // By each parameter, all steps added up.
  std::vector<Bounded> gradient_;
};

}  // namespace shardproof

#endif  // SHARDPROOF_REFERENCE_TRAINED_PARAMETERS_H_
