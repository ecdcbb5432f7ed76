#include "reference/linear_stack.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <vector>

#include "reference/random.h"

namespace shardproof {
namespace {

// A stack of two layers, 5 to 4 to 3, of 7 tokens of which 3 have the prefix.
struct Model {
  explicit Model(const Distribution& d)
      : x(Make(d, {7, 5}, "x")),
        prefix(Make(d, {5}, "prefix")),
        w0(Make(d, {4, 5}, "w0")),
        b0(Make(d, {4}, "b0")),
        w1(Make(d, {3, 4}, "w1")),
        b1(Make(d, {3}, "b1")),
        dy(Make(d, {7, 3}, "dy")) {}
  static Tensor Make(const Distribution& d, const Shape& shape,
                     std::string_view name) {
    Tensor t(d.dtype, shape);
    Fill(d, {.seed = 3, .tensor = TensorId(name)}, 0, t.num_elements(),
         t.raw());
    return t;
  }
  LinearStackInputs inputs() const {
    return {.x = x.view(),
            .prefix = prefix.view(),
            .prefixed = 3,
            .w = {w0.view(), w1.view()},
            .b = {b0.view(), b1.view()},
            .dy = dy.view()};
  }
  Tensor x, prefix, w0, b0, w1, b1, dy;
};

// sum over tokens of <dy, y>, whose gradients these are, step by step.
double Loss(const Model& m) {
  double loss = 0;
  for (int64_t t = 0; t < 7; ++t) {
    double h[4];
    for (int64_t j = 0; j < 4; ++j) {
      h[j] = m.b0.data<double>()[j];
      for (int64_t k = 0; k < 5; ++k) {
        const double in = m.x.data<double>()[t * 5 + k] +
                          (t < 3 ? m.prefix.data<double>()[k] : 0);
        h[j] += in * m.w0.data<double>()[j * 5 + k];
      }
    }
    for (int64_t j = 0; j < 3; ++j) {
      double y = m.b1.data<double>()[j];
      for (int64_t k = 0; k < 4; ++k) {
        y += h[k] * m.w1.data<double>()[j * 4 + k];
      }
      loss += y * m.dy.data<double>()[t * 3 + j];
    }
  }
  return loss;
}

const TokenParts kParts = {{{0, 3}, {3, 4}}, {{4, 4}, {4, 5}}, {{5, 7}}};

// The loss is a straight line along every parameter, and everything here an
// integer: a difference over a step of 1 is the derivative to the last bit.
TEST(LinearStackReference, IsTheDerivativeOfTheLoss) {
  Model m({.kind = Distribution::Kind::kInteger,
           .dtype = DType::kF64,
           .magnitude = 9});
  const LinearStackGradients g = LinearStackReference(
      m.inputs(), kParts, Arithmetic::For(DType::kF64, 3), 0);
  const auto expect = [&m](Tensor& parameter, const Matrix& gradient) {
    ASSERT_EQ(static_cast<int64_t>(gradient.values.size()),
              parameter.num_elements());
    const double before = Loss(m);
    for (int64_t i = 0; i < parameter.num_elements(); ++i) {
      parameter.data<double>()[i] += 1;
      EXPECT_EQ(gradient.values[static_cast<size_t>(i)].value,
                Loss(m) - before);
      parameter.data<double>()[i] -= 1;
    }
  };
  expect(m.prefix, g.prefix);
  expect(m.w0, g.dw[0]);
  expect(m.b0, g.db[0]);
  expect(m.w1, g.dw[1]);
  expect(m.b1, g.db[1]);
}

// Weights in bounds: the same values, and bounds that hold for every model whose
// weights are off by that much.
TEST(LinearStackReference, CarriesTheBoundsOfWeights) {
  Model m(Uniform(DType::kF64));
  const Arithmetic a = Arithmetic::For(DType::kF64, 3);
  const LinearStackGradients exact =
      LinearStackReference(m.inputs(), kParts, a, 6);
  LinearStackWeights weights = ExactWeights(m.inputs());
  const LinearStackGradients same =
      LinearStackReference(m.inputs(), weights, kParts, a, 6);
  constexpr double kOff = 1e-3;
  for (Bounded& w : weights.w[1].values) w.worst = w.likely = kOff;
  const LinearStackGradients off =
      LinearStackReference(m.inputs(), weights, kParts, a, 6);
  for (int64_t i = 0; i < m.w1.num_elements(); ++i) {
    m.w1.data<double>()[i] += i % 3 == 0 ? kOff : -kOff;
  }
  const LinearStackGradients moved =
      LinearStackReference(m.inputs(), kParts, a, 6);
  double worst = 0;
  for (size_t i = 0; i < exact.dw[0].values.size(); ++i) {
    const Bounded &e = exact.dw[0].values[i], &s = same.dw[0].values[i],
                  &o = off.dw[0].values[i], &n = moved.dw[0].values[i];
    EXPECT_LE(std::abs(s.value - e.value), 1e-15);
    EXPECT_LE(s.worst, 2 * e.worst);
    EXPECT_EQ(o.value, s.value);
    EXPECT_LE(std::abs(n.value - o.value), o.worst);
    worst = std::max(worst, std::abs(n.value - o.value) / o.worst);
  }
  EXPECT_GT(worst, 0.1);
  // What does not depend on w_1.
  EXPECT_LE(off.dw[1].at(0, 0).worst, 2 * exact.dw[1].at(0, 0).worst);
}

TEST(LinearStackReference, DividesAndSamples) {
  const Model m(Uniform(DType::kF32));
  const Arithmetic a = Arithmetic::For(DType::kF32, 3);
  const LinearStackGradients all =
      LinearStackReference(m.inputs(), kParts, a, 0);
  const LinearStackGradients some =
      LinearStackReference(m.inputs(), kParts, a, 6, {{1, 3}, {2}});
  ASSERT_EQ(some.dw[0].values.size(), 2 * 5u);
  EXPECT_EQ(some.dw[0].at(1, 4).value, all.dw[0].at(3, 4).value / 6);
  EXPECT_EQ(some.dw[1].at(0, 2).value, all.dw[1].at(2, 2).value / 6);
  EXPECT_EQ(some.prefix.at(0, 2).value, all.prefix.at(0, 2).value / 6);
}

TEST(LinearStackReference, PartialsAddUp) {
  const Model m({.kind = Distribution::Kind::kInteger,
                 .dtype = DType::kF64,
                 .magnitude = 9});
  const Arithmetic a = Arithmetic::For(DType::kF64);
  const LinearStackGradients all =
      LinearStackReference(m.inputs(), kParts, a, 0);
  const std::vector<LinearStackGradients> ranks =
      LinearStackPartials(m.inputs(), kParts, a);
  ASSERT_EQ(ranks.size(), 3u);
  for (size_t i = 0; i < all.dw[0].values.size(); ++i) {
    EXPECT_EQ(ranks[0].dw[0].values[i].value + ranks[1].dw[0].values[i].value +
                  ranks[2].dw[0].values[i].value,
              all.dw[0].values[i].value);
  }
  // The tokens with the prefix are all of rank 0.
  EXPECT_EQ(ranks[0].prefix.at(0, 0).value, all.prefix.at(0, 0).value);
  EXPECT_EQ(ranks[2].prefix.at(0, 0).value, 0);
}

// db_1 of one rank: bf16 sums of bf16 numbers, stored after each micro-batch.
TEST(LinearStackReference, BoundsWhatIsStoredAfterEachMicroBatch) {
  const Model m(Uniform(DType::kBF16));
  const TokenParts parts = {{{0, 2}, {2, 3}, {3, 4}, {4, 5}, {5, 7}}};
  const LinearStackGradients g =
      LinearStackReference(m.inputs(), parts, Arithmetic::For(DType::kBF16), 0);
  double worst = 0;
  for (int64_t j = 0; j < 3; ++j) {
    double stored = 0;
    for (const TokenRange& tokens : parts[0]) {
      float sum = 0;
      for (int64_t t = tokens.begin; t < tokens.end; ++t) {
        sum += static_cast<float>(m.dy.data<BFloat16>()[t * 3 + j]);
      }
      stored = Round(DType::kBF16, stored + static_cast<double>(sum));
    }
    const Bounded& want = g.db[1].at(0, j);
    const double error = std::abs(stored - want.value);
    EXPECT_LE(error, want.worst);
    worst = std::max(worst, error / want.worst);
  }
  // A bound that has room for many times the error would hide bugs.
  EXPECT_GT(worst, 0.05);
}

}  // namespace
}  // namespace shardproof
