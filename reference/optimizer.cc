#include "reference/optimizer.h"

#include <algorithm>
#include <cmath>

namespace shardproof {
namespace {

constexpr double kDoubleRoundoff = 0x1p-53;
// lambda for any number of elements below 1e12.
constexpr double kMostLambda = 10;

// All of the likely error where it adds linearly. An element's error enters its
// moments and its weight more than once, and so is not independent of itself.
Bounded Correlated(const Bounded& x) {
  return {x.value, x.worst, x.Likely(kMostLambda), 0};
}

Bounded Square(const Bounded& x) {
  const double v = std::abs(x.value);
  return {v * v, (2 * v + x.worst) * x.worst + kSlack * v * v,
          (2 * v + x.likely) * x.likely + kSlack * v * v, 0};
}

// |sqrt(c) - sqrt(v)| = |c - v| / (sqrt(c) + sqrt(v)) for any c of [v - e, v +
// e] that is not negative.
double RootError(double v, double e) {
  if (e == 0) return 0;
  return e / (std::sqrt(std::max(0.0, v - e)) + std::sqrt(std::max(v, 0.0)) +
              (v <= 0 ? std::sqrt(e) : 0));
}

Bounded Root(const Bounded& x) {
  const double f = std::sqrt(std::max(0.0, x.value));
  const double own = kSlack * f;
  return {f, RootError(x.value, x.worst) + own,
          RootError(x.value, x.Likely(kMostLambda)) + own, 0};
}

// |a' / b' - a / b| <= (e_a + |a / b| e_b) / (b - e_b), for b > 0; nor more than
// |a / b| + most, where |a' / b'| <= most.
Bounded Quotient(const Bounded& a, const Bounded& b, double most = HUGE_VAL) {
  const double q = a.value / b.value;
  const auto error = [&](double ea, double eb) {
    const double farthest = std::abs(q) + most;
    if (b.value <= eb) return farthest;
    return std::min(farthest, (ea + std::abs(q) * eb) / (b.value - eb) +
                                  kSlack * std::abs(q));
  };
  return {q, error(a.worst, b.worst),
          error(a.Likely(kMostLambda), b.Likely(kMostLambda)), 0};
}

// min(1, x).
Bounded AtMostOne(const Bounded& x) {
  const auto error = [&](double e) { return x.value - e >= 1 ? 0 : e; };
  return {std::min(1.0, x.value), error(x.worst), error(x.likely), 0};
}

// A value with n roundings of a double.
Bounded InDouble(double value, double roundings) {
  const double e = roundings * kDoubleRoundoff * std::abs(value);
  return {value, e, e, 0};
}

// The most that |m| / sqrt(v) can be after n steps, whatever the gradients: by
// Cauchy and Schwarz, m = (1 - beta1) sum beta1^k g_k and v = (1 - beta2) sum
// beta2^k g_k^2 give |m| / sqrt(v) <= (1 - beta1) / sqrt(1 - beta2) sqrt(sum
// (beta1^2 / beta2)^k). Where gradients are of the size of their errors, this is
// all that there is to say.
double LargestRatio(double beta1, double beta2, int64_t n) {
  const double ratio = beta1 == 0 ? 0 : beta1 * beta1 / beta2;
  double sum = 0;
  for (int64_t k = 0; k < n; ++k)
    sum += std::pow(ratio, static_cast<double>(k));
  return (1 - beta1) / std::sqrt(1 - beta2) * std::sqrt(sum);
}

// 1 - beta^n, where the power is off by a unit in its last place.
Bounded BiasCorrection(double beta, int64_t n) {
  const long double power =
      std::pow(static_cast<long double>(beta), static_cast<long double>(n));
  const auto value = static_cast<double>(1 - power);
  const double e =
      kDoubleRoundoff * (2 * static_cast<double>(power) + 2 * value);
  return {value, e, e, 0};
}

}  // namespace

std::string_view Name(OptimizerRule rule) {
  switch (rule) {
    case OptimizerRule::kSgd:
      return "sgd";
    case OptimizerRule::kAdam:
      return "adam";
    case OptimizerRule::kAdamW:
      return "adamw";
  }
  return "";
}

void LossScale::Update(bool overflow) {
  if (!scaling_.has_value()) return;
  if (overflow) {
    value_ *= scaling_->backoff;
    tracker_ = 0;
    return;
  }
  if (++tracker_ < scaling_->growth_interval) return;
  const double grown = value_ * scaling_->growth;
  if (grown <= MaxFinite(DType::kF32)) value_ = grown;
  tracker_ = 0;
}

OptimizerReference::OptimizerReference(const OptimizerSettings& settings,
                                       DType dtype,
                                       std::span<const double> initial)
    : settings_(settings),
      dtype_(dtype),
      computed_(Accumulator(dtype)),
      scale_(settings.loss_scaling) {
  for (const double w : initial) weights_.push_back({.value = w});
  if (settings.HasFirstMoment()) first_.resize(initial.size());
  if (settings.HasSecondMoment()) second_.resize(initial.size());
}

Bounded OptimizerReference::Rounded(const Bounded& x) const {
  return shardproof::Rounded(x, computed_);
}

// Computed in double, rounded once to the type of the weights.
Bounded OptimizerReference::Constant(double value) const {
  return Rounded(InDouble(value, value == std::round(value) ? 0 : 4));
}

Bounded OptimizerReference::Multiplier(double factor) {
  // A power of two, or next to it.
  const Bounded unscale = InDouble(factor / scale_.value(), 1);
  if (!settings_.max_norm.has_value()) return Rounded(unscale);
  const double most = *settings_.max_norm;
  if (std::isinf(most)) return Rounded(unscale);
  const Bounded clip = AtMostOne(Quotient(
      {.value = most}, norm_ + Bounded{.value = settings_.clip_epsilon}));
  return Rounded(clip * unscale);
}

void OptimizerReference::Step(std::span<const Bounded> gradients,
                              double factor) {
  skipped_ = settings_.loss_scaling.has_value() &&
             std::any_of(gradients.begin(), gradients.end(),
                         [](const auto& g) { return !std::isfinite(g.value); });
  if (settings_.max_norm.has_value()) {
    std::vector<Bounded> g;
    for (const Bounded& x : gradients) g.push_back(Correlated(x));
    Bounded squares = Dot(g, g, kDoubleRoundoff);
    norm_ = skipped_ ? Bounded{.value = HUGE_VAL}
                     : InDouble(std::abs(factor) / scale_.value(), 2) *
                           Root(squares);
  }
  if (!skipped_) {
    ++steps_;
    const Bounded k = Multiplier(factor);
    for (size_t i = 0; i < weights_.size(); ++i) {
      UpdateElement(Rounded(Correlated(gradients[i]) * k), i);
    }
  }
  scale_.Update(skipped_);
}

void OptimizerReference::UpdateElement(const Bounded& gradient, size_t i) {
  const OptimizerSettings& s = settings_;
  Bounded g = gradient;
  Bounded& w = weights_[i];
  if (s.rule != OptimizerRule::kAdamW && s.weight_decay != 0) {
    g = Rounded(g + Rounded(Constant(s.weight_decay) * w));
  }
  if (s.rule == OptimizerRule::kSgd) {
    if (s.momentum != 0) {
      first_[i] = Rounded(Rounded(Constant(s.momentum) * first_[i]) + g);
      g = first_[i];
    }
    w = Rounded(w - Rounded(Constant(s.learning_rate) * g));
    return;
  }
  Bounded& m = first_[i];
  Bounded& v = second_[i];
  m = Rounded(Rounded(Constant(s.beta1) * m) +
              Rounded(Constant(1 - s.beta1) * g));
  v = Rounded(Rounded(Constant(s.beta2) * v) +
              Rounded(Rounded(Constant(1 - s.beta2) * Square(g))));
  const Bounded correction =
      Rounded(Quotient({.value = 1}, Root(BiasCorrection(s.beta2, steps_))));
  const Bounded root = Rounded(correction * Rounded(Root(v)));
  const Bounded denominator = Rounded(root + Constant(s.epsilon));
  if (s.rule == OptimizerRule::kAdamW && s.weight_decay != 0) {
    w = Rounded(Constant(1 - s.learning_rate * s.weight_decay) * w);
  }
  const Bounded step_size = Rounded(
      Quotient({.value = s.learning_rate}, BiasCorrection(s.beta1, steps_)));
  const double u = UnitRoundoff(computed_);
  // As it is computed: up to 4 n roundings in m, 2.5 n in the root of v, and
  // fewer than 9 besides.
  const double most = LargestRatio(s.beta1, s.beta2, steps_) /
                      correction.value *
                      (1 + 16 * u * static_cast<double>(steps_));
  const Bounded step =
      Rounded(step_size * Rounded(Quotient(m, denominator, most)));
  w = Rounded(w - step);
}

std::vector<Bounded> OptimizerReference::parameters() const {
  std::vector<Bounded> out;
  for (const Bounded& w : weights_) {
    out.push_back(computed_ == dtype_ ? w : shardproof::Rounded(w, dtype_));
  }
  return out;
}

}  // namespace shardproof
