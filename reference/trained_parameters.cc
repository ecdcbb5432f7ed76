#include "reference/trained_parameters.h"

#include <cmath>

namespace shardproof {
namespace {

// Of the constants of a step (a corrected rate, a clipped factor), in double.
constexpr int64_t kConstantRoundings = 8;
// Of doubles, for a probe in f64 to be seen.
constexpr int64_t kOwnRoundings = 64;

}  // namespace

Bounded Unknown(double value) { return {value, HUGE_VAL, HUGE_VAL, 0}; }

TrainedParameters::TrainedParameters(const OptimizerSettings& settings,
                                     DType dtype,
                                     std::span<const double> initial)
    : optimizer_(settings, dtype, initial),
      moved_(initial.size()),
      gradient_(initial.size()) {}

void TrainedParameters::Step(std::span<const Bounded> gradient, double factor) {
  gradient_.clear();
  for (const Bounded& g : gradient) gradient_.push_back(Unknown(g.value));
  std::vector<double> from;
  for (const Bounded& w : optimizer_.weights()) from.push_back(w.value);
  optimizer_.Step(gradient, factor);
  for (size_t i = 0; i < from.size(); ++i) {
    moved_[i] += std::abs(optimizer_.weights()[i].value - from[i]);
  }
}

Bounded TrainedParameters::norm() const {
  const double norm = optimizer_.norm().value;
  return Unknown(Accumulated({norm}, norm, kOwnRoundings, kSlack).value);
}

std::vector<Bounded> TrainedParameters::parameters() const {
  std::vector<Bounded> out;
  const std::vector<Bounded> weights = optimizer_.parameters();
  for (size_t i = 0; i < weights.size(); ++i) {
    const Bounded moved =
        Accumulated({weights[i].value}, moved_[i], kConstantRoundings, kSlack);
    out.push_back(
        Unknown(Accumulated(moved, std::abs(moved.value), kOwnRoundings, kSlack)
                    .value));
  }
  return out;
}

std::vector<double> TrainedParameters::values() const {
  std::vector<double> out;
  for (const Bounded& w : parameters()) out.push_back(w.value);
  return out;
}

}  // namespace shardproof
