// Against steps computed by hand, and what clipping and loss scaling do.
#include "reference/optimizer.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <vector>

namespace shardproof {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();

std::vector<Bounded> Exactly(std::initializer_list<double> values) {
  std::vector<Bounded> out;
  for (const double v : values) out.push_back({.value = v});
  return out;
}

OptimizerReference OfOnes(const OptimizerSettings& settings, size_t n = 1,
                          DType dtype = DType::kF64) {
  return {settings, dtype, std::vector<double>(n, 1.0)};
}

TEST(OptimizerReference, PlainDescent) {
  OptimizerReference r = OfOnes(
      {.rule = OptimizerRule::kSgd, .learning_rate = 0.5, .weight_decay = 0.25},
      2);
  r.Step(Exactly({1, -2}));
  // w - 1/2 (g + w / 4)
  EXPECT_EQ(r.weights()[0].value, 1 - 0.5 * 1.25);
  EXPECT_EQ(r.weights()[1].value, 1 + 0.5 * 1.75);
  EXPECT_TRUE(r.first().empty());
}

TEST(OptimizerReference, Momentum) {
  OptimizerReference r = OfOnes(
      {.rule = OptimizerRule::kSgd, .learning_rate = 0.5, .momentum = 0.75});
  r.Step(Exactly({4}));
  EXPECT_EQ(r.weights()[0].value, 1 - 0.5 * 4);
  r.Step(Exactly({1}));
  EXPECT_EQ(r.first()[0].value, 0.75 * 4 + 1);
  EXPECT_EQ(r.weights()[0].value, -1 - 0.5 * 4);
}

// rate 0.1, betas 0.9 and 0.99, epsilon 0.1, decay 0.2, gradients 0.5 and -1:
//   m 0.05, v 0.0025; m / 0.1 = 0.5, sqrt(v / 0.01) = 0.5
//   m 0.045 - 0.1 = -0.055, v 0.002475 + 0.01 = 0.012475
//   m / 0.19 = -0.2894737, sqrt(v / 0.0199) = 0.79176
TEST(OptimizerReference, AdamW) {
  OptimizerReference r = OfOnes({.rule = OptimizerRule::kAdamW,
                                 .learning_rate = 0.1,
                                 .beta1 = 0.9,
                                 .beta2 = 0.99,
                                 .epsilon = 0.1,
                                 .weight_decay = 0.2});
  r.Step(Exactly({0.5}));
  EXPECT_NEAR(r.weights()[0].value, 0.98 - 0.1 * 0.5 / 0.6, 1e-14);
  EXPECT_NEAR(r.first()[0].value, 0.05, 1e-16);
  EXPECT_NEAR(r.second()[0].value, 0.0025, 1e-17);
  r.Step(Exactly({-1}));
  const double root = std::sqrt(0.012475 / 0.0199) + 0.1;
  EXPECT_NEAR(r.weights()[0].value,
              (0.98 - 0.1 * 0.5 / 0.6) * 0.98 + 0.1 * (0.055 / 0.19) / root,
              1e-14);
  EXPECT_NEAR(r.second()[0].value, 0.012475, 1e-16);
}

// The same with the decay in the gradient: 0.7, and then -1 + 0.2 w.
TEST(OptimizerReference, AdamDecaysThroughTheGradient) {
  OptimizerReference r = OfOnes({.rule = OptimizerRule::kAdam,
                                 .learning_rate = 0.1,
                                 .beta1 = 0.9,
                                 .beta2 = 0.99,
                                 .epsilon = 0.1,
                                 .weight_decay = 0.2});
  r.Step(Exactly({0.5}));
  EXPECT_NEAR(r.first()[0].value, 0.07, 1e-16);
  EXPECT_NEAR(r.second()[0].value, 0.0049, 1e-16);
  EXPECT_NEAR(r.weights()[0].value, 1 - 0.1 * 0.7 / 0.8, 1e-14);
}

TEST(OptimizerReference, ClipsByTheNormOfAll) {
  const OptimizerSettings settings = {
      .rule = OptimizerRule::kSgd, .learning_rate = 1, .max_norm = 1.0};
  OptimizerReference r = OfOnes(settings, 2);
  r.Step(Exactly({3, 4}));
  EXPECT_EQ(r.norm().value, 5);
  EXPECT_NEAR(r.weights()[0].value, 1 - 3 / (5 + 1e-6), 1e-15);
  EXPECT_NEAR(r.weights()[1].value, 1 - 4 / (5 + 1e-6), 1e-15);
  // A small gradient is left as it is.
  OptimizerReference small = OfOnes(settings, 2);
  small.Step(Exactly({0.25, 0.5}));
  EXPECT_EQ(small.weights()[0].value, 0.75);
  // The factor counts in the norm.
  OptimizerReference scaled = OfOnes(settings, 2);
  scaled.Step(Exactly({3, 4}), 0.125);
  EXPECT_EQ(scaled.norm().value, 0.625);
  EXPECT_EQ(scaled.weights()[1].value, 0.5);
}

TEST(OptimizerReference, LeavesOverflowsOut) {
  OptimizerReference r = OfOnes({.rule = OptimizerRule::kAdam,
                                 .max_norm = kInfinity,
                                 .loss_scaling = LossScaling{.initial = 8}},
                                2);
  r.Step(Exactly({8, 16}));
  EXPECT_FALSE(r.skipped());
  EXPECT_NEAR(r.norm().value, std::sqrt(5), 1e-15);
  const double w = r.weights()[0].value, m = r.first()[1].value;
  for (const double bad : {kInfinity, std::nan("")}) {
    r.Step(Exactly({1, bad}));
    EXPECT_TRUE(r.skipped());
    EXPECT_EQ(r.norm().value, kInfinity);
  }
  EXPECT_EQ(r.steps(), 1);
  EXPECT_EQ(r.weights()[0].value, w);
  EXPECT_EQ(r.first()[1].value, m);
  EXPECT_EQ(r.loss_scale(), 2);
}

TEST(LossScale, GrowsAfterAnIntervalWithoutOverflow) {
  LossScale s(LossScaling{
      .initial = 4, .growth = 2, .backoff = 0.5, .growth_interval = 3});
  const bool overflow[] = {false, false, true, false, false, false, false};
  const double after[] = {4, 4, 2, 2, 2, 4, 4};
  for (size_t i = 0; i < std::size(after); ++i) {
    s.Update(overflow[i]);
    EXPECT_EQ(s.value(), after[i]) << "after step " << i;
  }
  EXPECT_EQ(LossScale(std::nullopt).value(), 1);
  // Not beyond f32.
  LossScale most(LossScaling{.initial = 0x1p127, .growth_interval = 1});
  most.Update(false);
  EXPECT_EQ(most.value(), 0x1p127);
}

TEST(OptimizerReference, ParametersAreRoundedMasters) {
  OptimizerReference r = OfOnes(
      {.rule = OptimizerRule::kSgd, .learning_rate = 1}, 1, DType::kBF16);
  // Below half a unit of bf16 at 1: only the master sees it.
  for (int i = 0; i < 3; ++i) r.Step(Exactly({0x1p-10}));
  EXPECT_EQ(r.weights()[0].value, 1 - 3 * 0x1p-10);
  EXPECT_LE(r.weights()[0].worst, 0x1p-21);
  const Bounded parameter = r.parameters()[0];
  EXPECT_GE(parameter.worst, 0x1p-9);
  EXPECT_LE(parameter.worst, 0x1p-7);
}

// What bounds promise: a float computation in another order stays inside.
TEST(OptimizerReference, BoundsHoldForFloats) {
  const OptimizerSettings s = {.learning_rate = 0.1,
                               .beta2 = 0.95,
                               .epsilon = 1e-4,
                               .weight_decay = 0.1};
  constexpr int kWeights = 200;
  OptimizerReference r = OfOnes(s, kWeights, DType::kF32);
  std::vector<float> w(kWeights, 1), m(kWeights), v(kWeights);
  double worst = 0;
  for (int t = 1; t <= 5; ++t) {
    std::vector<Bounded> g(kWeights);
    for (int i = 0; i < kWeights; ++i) {
      const auto x = static_cast<float>(std::sin(1 + i * 7.0 + t));
      g[i].value = x;
      m[i] += (1 - 0.9F) * (x - m[i]);
      v[i] += (1 - 0.95F) * (x * x - v[i]);
      const float c1 = 1 - std::pow(0.9F, static_cast<float>(t));
      const float c2 = 1 - std::pow(0.95F, static_cast<float>(t));
      w[i] -= 0.1F * (m[i] / c1 / (std::sqrt(v[i] / c2) + 1e-4F) + 0.1F * w[i]);
    }
    r.Step(g);
  }
  for (int i = 0; i < kWeights; ++i) {
    const Bounded& want = r.weights()[i];
    worst = std::max(worst, std::abs(w[i] - want.value) / want.worst);
  }
  EXPECT_LE(worst, 1);
  EXPECT_GE(worst, 0.01);  // Nor is the bound good for nothing.
}

}  // namespace
}  // namespace shardproof
