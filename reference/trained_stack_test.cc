// Against products written out, finite differences and a computation in float.
#include "reference/trained_stack.h"

#include <gtest/gtest.h>

#include <cmath>
#include <vector>

namespace shardproof {
namespace {

using Doubles = std::vector<double>;

const OptimizerSettings kDescent = {.rule = OptimizerRule::kSgd,
                                    .learning_rate = 0.5};

Doubles Numbers(size_t n, double seed) {
  Doubles out;
  for (size_t i = 0; i < n; ++i) {
    out.push_back(std::sin(seed + 1.7 * static_cast<double>(i)));
  }
  return out;
}

// y of plain loops, for any parameters.
Doubles Forward(const std::vector<int64_t>& widths, const Doubles& parameters,
                Doubles x) {
  size_t at = 0;
  for (size_t l = 0; l + 1 < widths.size(); ++l) {
    const auto in = static_cast<size_t>(widths[l]);
    const auto out = static_cast<size_t>(widths[l + 1]);
    Doubles y;
    for (size_t t = 0; t < x.size() / in; ++t) {
      for (size_t j = 0; j < out; ++j) {
        double sum = parameters[at + out * in + j];
        for (size_t k = 0; k < in; ++k) {
          sum += x[t * in + k] * parameters[at + j * in + k];
        }
        y.push_back(sum);
      }
    }
    at += (in + 1) * out;
    x = y;
  }
  return x;
}

double Inner(const Doubles& a, const Doubles& b) {
  double sum = 0;
  for (size_t i = 0; i < a.size(); ++i) sum += a[i] * b[i];
  return sum;
}

// One token through [2, 3] and [4]: x1 = 2 5 + 3 7 + 1, y = 4 x1 - 2.
TEST(TrainedStackReference, ByHand) {
  TrainedStackReference r({2, 1, 1}, DType::kF64, kDescent,
                          Doubles{2, 3, 1, 4, -2});
  r.Step(Doubles{5, 7}, Doubles{10}, {.tokens = {1}});
  EXPECT_EQ(r.y()[0].value, 4 * 32 - 2);
  EXPECT_EQ(r.gradient()[3].value, 10 * 32);  // w of the second layer.
  EXPECT_EQ(r.gradient()[4].value, 10);
  EXPECT_EQ(r.gradient()[0].value, 40 * 5);
  EXPECT_EQ(r.gradient()[1].value, 40 * 7);
  EXPECT_EQ(r.gradient()[2].value, 40);
  EXPECT_EQ(r.dx()[0].value, 40 * 2);
  EXPECT_EQ(r.dx()[1].value, 40 * 3);
  EXPECT_EQ(r.optimizer().weights()[0].value, 2 - 0.5 * 200);
  // The second step computes with the new weights.
  r.Step(Doubles{0, 0}, Doubles{1}, {.tokens = {1}});
  EXPECT_EQ(r.y()[0].value, (4 - 0.5 * 320) * (1 - 0.5 * 40) + (-2 - 0.5 * 10));
}

// The loss <dy, y> is linear in each parameter: differences are exact up to
// rounding.
TEST(TrainedStackReference, FiniteDifferences) {
  const std::vector<int64_t> widths = {3, 5, 2};
  const Doubles parameters = Numbers(4 * 5 + 6 * 2, 1);
  const Doubles x = Numbers(7 * 3, 2), dy = Numbers(7 * 2, 3);
  TrainedStackReference r(widths, DType::kF64, kDescent, parameters);
  r.Step(x, dy, {.tokens = {3, 0, 4}});
  const auto slope = [&](const Doubles& up, const Doubles& down,
                         const Doubles& x_up, const Doubles& x_down) {
    return Inner(dy, Forward(widths, up, x_up)) -
           Inner(dy, Forward(widths, down, x_down));
  };
  for (size_t i = 0; i < parameters.size(); ++i) {
    Doubles up = parameters, down = parameters;
    up[i] += 0.5;
    down[i] -= 0.5;
    EXPECT_NEAR(r.gradient()[i].value, slope(up, down, x, x), 1e-12) << i;
  }
  for (size_t i = 0; i < x.size(); ++i) {
    Doubles up = x, down = x;
    up[i] += 0.5;
    down[i] -= 0.5;
    EXPECT_NEAR(r.dx()[i].value, slope(parameters, parameters, up, down), 1e-12)
        << i;
  }
  const Doubles y = Forward(widths, parameters, x);
  for (size_t i = 0; i < y.size(); ++i) {
    EXPECT_NEAR(r.y()[i].value, y[i], 1e-14);
  }
}

// One layer in float, its gradient as two parts: errors within the bound, and
// the bound of the size of a few roundings.
TEST(TrainedStackReference, BoundsHoldForFloats) {
  constexpr size_t kIn = 6, kOut = 4, kTokens = 9;
  Doubles parameters = Numbers((kIn + 1) * kOut, 4);
  Doubles x = Numbers(kTokens * kIn, 5), dy = Numbers(kTokens * kOut, 6);
  for (Doubles* values : {&parameters, &x, &dy}) {
    RoundAll(DType::kF32, values->data(), static_cast<int64_t>(values->size()));
  }
  TrainedStackReference r({kIn, kOut}, DType::kF32, kDescent, parameters);
  r.Step(x, dy, {.tokens = {4, 5}, .roundings = 1});
  double worst = 0;
  const auto compare = [&](float got, const Bounded& want) {
    const double e = std::abs(got - want.value);
    EXPECT_LE(e, want.worst);
    EXPECT_LE(want.worst, 16 * 0x1p-24 * kTokens);
    worst = std::max(worst, e / want.worst);
  };
  for (size_t j = 0; j < kOut; ++j) {
    for (size_t k = 0; k < kIn; ++k) {
      float parts[2] = {0, 0};
      for (size_t t = 0; t < kTokens; ++t) {
        parts[t / 4 > 0 ? 1 : 0] += static_cast<float>(dy[t * kOut + j]) *
                                    static_cast<float>(x[t * kIn + k]);
      }
      compare(parts[0] + parts[1], r.gradient()[j * kIn + k]);
    }
  }
  EXPECT_GE(worst, 0.02);
}

}  // namespace
}  // namespace shardproof
