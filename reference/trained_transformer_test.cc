// Against finite differences, and probes of it against other probes.
#include "reference/trained_transformer.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <vector>

#include "reference/compare.h"
#include "reference/probe.h"
#include "reference/random.h"
#include "reference/tensor.h"

namespace shardproof {
namespace {

using Doubles = std::vector<double>;

constexpr int64_t kSequences = 4, kLength = 3, kH = 4;

TrainedTransformerConfig Config(bool llama, OptimizerRule rule) {
  TrainedTransformerConfig c{
      .length = kLength,
      .hidden = kH,
      .heads = 2,
      .kv_heads = llama ? 1 : 2,
      .head_dim = 2,
      .intermediate = 5,
      .norm = llama ? NormKind::kRmsNorm : NormKind::kLayerNorm,
      .activation = llama ? Activation::kSwiGlu : Activation::kGeluTanh,
      .rope_theta = llama ? 10000. : 0.,
      .bias = !llama};
  c.optimizer = {.rule = rule,
                 .learning_rate = 0.25,
                 .beta1 = 0.75,
                 .beta2 = 0.9375,
                 .epsilon = 0.125};
  return c;
}

// Representable in f32.
Doubles Numbers(const char* name, int64_t n, double scale = 1) {
  Tensor t(DType::kF32, {n});
  Fill(Uniform(DType::kF32, scale), {7, TensorId(name)}, 0, n, t.raw());
  return {t.data<float>(), t.data<float>() + n};
}

struct Data {
  explicit Data(const TrainedTransformerConfig& c, int64_t steps = 1)
      : initial(Numbers("w", c.blocks * c.parameters(), 0.75)),
        x(Numbers("x", steps * kSequences * kLength * kH)),
        dy(Numbers("dy", steps * kSequences * kLength * kH)) {}
  Doubles initial, x, dy;
};

Doubles Values(const std::vector<Bounded>& values) {
  Doubles out;
  for (const Bounded& v : values) out.push_back(v.value);
  return out;
}

// <dy, y> of the chain. The order of parameters is written down once more.
double Loss(const TrainedTransformerConfig& c, const Data& data,
            const Doubles& parameters) {
  const auto count = static_cast<size_t>(c.parameters());
  const auto tensor = [](const Shape& shape, const double* from) {
    Tensor t(DType::kF64, shape);
    std::copy_n(from, shape.NumElements(), t.data<double>());
    return t;
  };
  const int64_t fused = (c.heads + 2 * c.kv_heads) * c.head_dim;
  Matrix y;
  const Tensor x = tensor({kSequences * kLength, kH}, data.x.data());
  for (int l = 0; l < c.blocks; ++l) {
    const double* at = parameters.data() + static_cast<size_t>(l) * count;
    const auto next = [&](const Shape& shape) {
      const double* const from = at;
      at += shape.NumElements();
      return tensor(shape, from);
    };
    const bool llama = c.activation == Activation::kSwiGlu;
    Tensor norm1_b, b_qkv, b_out, norm2_b, w_gate, b_up, b_down;
    const Tensor norm1_w = next({kH});
    if (!llama) norm1_b = next({kH});
    const Tensor w_qkv = next({fused, kH});
    if (!llama) b_qkv = next({fused});
    const Tensor w_out = next({kH, c.heads * c.head_dim});
    if (!llama) b_out = next({kH});
    const Tensor norm2_w = next({kH});
    if (!llama) norm2_b = next({kH});
    if (llama) w_gate = next({c.intermediate, kH});
    const Tensor w_up = next({c.intermediate, kH});
    if (!llama) b_up = next({c.intermediate});
    const Tensor w_down = next({kH, c.intermediate});
    if (!llama) b_down = next({kH});
    const Matrix below = y;
    TransformerBlockInputs in{.x = l == 0 ? BoundedView(x.view())
                                          : BoundedView(below)};
    in.norm1 = {c.norm, c.epsilon, norm1_w.view()};
    in.norm2 = {c.norm, c.epsilon, norm2_w.view()};
    in.attention = {.sequences = kSequences,
                    .heads = c.heads,
                    .kv_heads = c.kv_heads,
                    .head_dim = c.head_dim,
                    .rope_theta = c.rope_theta,
                    .x = {},
                    .w_qkv = w_qkv.view(),
                    .w_out = w_out.view()};
    in.mlp = {.activation = c.activation,
              .x = {},
              .w_up = w_up.view(),
              .w_down = w_down.view()};
    if (llama) {
      in.mlp.w_gate = w_gate.view();
    } else {
      in.norm1.bias = norm1_b.view();
      in.norm2.bias = norm2_b.view();
      in.attention.b_qkv = b_qkv.view();
      in.attention.b_out = b_out.view();
      in.mlp.b_up = b_up.view();
      in.mlp.b_down = b_down.view();
    }
    y = TransformerBlockReference(in,
                                  TransformerBlockArithmetic::For(DType::kF64))
            .y;
  }
  double loss = 0;
  for (size_t i = 0; i < y.values.size(); ++i) {
    loss += data.dy[i] * y.values[i].value;
  }
  return loss;
}

TEST(TrainedTransformerReference, DescendsFiniteDifferences) {
  for (const bool llama : {false, true}) {
    TrainedTransformerConfig c = Config(llama, OptimizerRule::kSgd);
    c.dtype = DType::kF64;
    const Data data(c);
    TrainedTransformerReference r(c, data.initial);
    r.Step(data.x, data.dy, 0.5);
    const Doubles after = Values(r.parameters());
    ASSERT_EQ(after.size(), data.initial.size());
    for (size_t i = 0; i < after.size(); ++i) {
      constexpr double kStep = 1e-5;
      Doubles w = data.initial;
      w[i] += kStep;
      const double up = Loss(c, data, w);
      w[i] -= 2 * kStep;
      const double down = Loss(c, data, w);
      const double gradient = (up - down) / (2 * kStep);
      ASSERT_NEAR(r.gradient()[i].value, gradient,
                  1e-6 * std::max(1.0, std::abs(gradient)))
          << i;
      ASSERT_NEAR(after[i], data.initial[i] - 0.25 * 0.5 * gradient,
                  1e-6 * std::max(1.0, std::abs(gradient)))
          << i;
    }
  }
}

TEST(TrainedTransformerReference, ClaimsNothingUnprobed) {
  const TrainedTransformerConfig c = Config(false, OptimizerRule::kSgd);
  const Data data(c);
  TrainedTransformerReference r(c, data.initial);
  r.Step(data.x, data.dy);
  for (const Bounded& w : r.parameters()) {
    EXPECT_EQ(w.worst, HUGE_VAL);
    EXPECT_EQ(w.Likely(7), HUGE_VAL);
  }
  EXPECT_EQ(r.norm().worst, HUGE_VAL);
}

std::vector<Bounded> Trained(const TrainedTransformerConfig& c, int64_t steps) {
  const Data data(c, steps);
  TrainedTransformerReference r(c, data.initial);
  const size_t n = kSequences * kLength * kH;
  for (size_t at = 0; at < data.x.size(); at += n) {
    r.Step(std::span(data.x).subspan(at, n), std::span(data.dy).subspan(at, n),
           1.0 / 16);
  }
  return r.parameters();
}

// What 8 probes say of 20 steps in f32 holds for other probes, which round
// everything by as much as is declared, and refuses a rate that is wrong by a
// thousandth.
TEST(TrainedTransformerReference, ProbesBoundOtherProbes) {
  for (const bool llama : {false, true}) {
    for (const OptimizerRule rule :
         {OptimizerRule::kSgd, OptimizerRule::kAdamW}) {
      TrainedTransformerConfig c = Config(llama, rule);
      c.optimizer.max_norm = 0.25;
      constexpr int64_t kSteps = 20;
      std::vector<Bounded> expected = Trained(c, kSteps);
      Deviations deviations(expected.size());
      // With 8, how much of so small a fault is seen would be their luck.
      for (uint64_t k = 0; k < 16; ++k) {
        const Probe probe(k);
        deviations.Add(expected, Trained(c, kSteps));
      }
      deviations.Tighten(Lambda(static_cast<double>(expected.size())),
                         expected);
      const auto beyond = [&](const std::vector<Bounded>& actual) {
        int64_t count = 0;
        for (size_t i = 0; i < actual.size(); ++i) {
          const double e = std::abs(actual[i].value - expected[i].value);
          if (!(e <= expected[i].Likely(7))) ++count;
        }
        return count;
      };
      for (uint64_t k = 100; k < 103; ++k) {
        const Probe probe(k);
        EXPECT_EQ(beyond(Trained(c, kSteps)), 0);
      }
      TrainedTransformerConfig faster = c;
      faster.optimizer.learning_rate *= 1.001;
      EXPECT_GT(beyond(Trained(faster, kSteps)),
                static_cast<int64_t>(expected.size()) / 2);
    }
  }
}

}  // namespace
}  // namespace shardproof
