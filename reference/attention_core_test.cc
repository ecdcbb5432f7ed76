#include "reference/attention_core.h"

#include <gtest/gtest.h>

#include <cmath>
#include <vector>

#include "reference/random.h"

namespace shardproof {
namespace {

using V = std::vector<double>;

V Draw(std::string_view name, int64_t n, double scale = 1) {
  V v(static_cast<size_t>(n));
  FillDouble(Uniform(DType::kF64, scale), {1, TensorId(name)}, 0, n, v.data());
  return v;
}

Matrix Make(int64_t rows, int64_t cols, const V& values) {
  Matrix m;
  for (int64_t i = 0; i < rows; ++i) m.rows.push_back(i);
  m.cols = cols;
  for (const double v : values) m.values.push_back({.value = v});
  return m;
}

V Softmax(const V& x) {
  double top = -HUGE_VAL, sum = 0;
  for (const double v : x) top = std::max(top, v);
  V p;
  for (const double v : x) sum += p.emplace_back(std::exp(v - top));
  for (double& v : p) v /= sum;
  return p;
}

TEST(SoftmaxRow, HandComputed) {
  const std::vector<Bounded> p = SoftmaxRow(
      std::vector<Bounded>{{.value = 0}, {.value = std::log(3)}}, 0x1p-24, 4);
  EXPECT_NEAR(p[0].value, 0.25, 1e-15);
  EXPECT_NEAR(p[1].value, 0.75, 1e-15);
  // exp of both, two additions, the division: at most 12 roundings. The other's
  // exponent is rounded, too: at most log 3 of a unit, and moves this by 1/4.
  const double units = 12 + std::log(3) / 4;
  EXPECT_NEAR(p[1].worst / p[1].value, units * 0x1p-24, 0.001 * 0x1p-24);
  EXPECT_TRUE(SoftmaxRow({}, 0x1p-24, 4).empty());
}

// One key: whatever its score is, it gets everything.
TEST(SoftmaxRow, OneKeyIsCertain) {
  const std::vector<Bounded> p = SoftmaxRow(
      std::vector<Bounded>{{.value = 17, .worst = 5, .likely = 5}}, 0, 0);
  EXPECT_EQ(p[0].value, 1);
  EXPECT_LE(p[0].worst, 1e-15);
}

// Scores of which nothing is known make probabilities that may be anything from
// 0 to 1, also where they are 0 in double, and that is what their bounds say.
TEST(SoftmaxRow, UnknownScores) {
  std::vector<Bounded> x;
  for (const double v : {0., 3., -20000.}) {
    x.push_back({.value = v, .worst = HUGE_VAL, .likely = HUGE_VAL});
  }
  for (const bool all : {true, false}) {
    if (!all) x[0].worst = x[0].likely = 0;
    for (const Bounded& p : SoftmaxRow(x, 0x1p-24, 4)) {
      for (const double bound : {p.worst, p.likely, p.Likely(7)}) {
        EXPECT_GE(bound, std::max(p.value, 1 - p.value));
        EXPECT_LE(bound, 1.001);
      }
      EXPECT_FALSE(std::isnan(p.likely2));
    }
  }
}

// Moved to the corners of their intervals, scores reach the bound and do not
// leave it.
TEST(SoftmaxRow, InputErrorsAreBoundedAsTightlyAsCanBe) {
  const V x = Draw("x", 9, 3), w = Draw("w", 9, 0.2);
  std::vector<Bounded> inexact;
  for (size_t k = 0; k < x.size(); ++k) {
    inexact.push_back({.value = x[k], .worst = std::abs(w[k])});
  }
  const std::vector<Bounded> p = SoftmaxRow(inexact, 0, 0);
  for (size_t j = 0; j < x.size(); ++j) {
    double reached = 0;
    for (const double sign : {1, -1}) {
      V moved = x;
      for (size_t k = 0; k < x.size(); ++k) {
        moved[k] += (k == j ? sign : -sign) * std::abs(w[k]);
      }
      reached = std::max(reached, std::abs(Softmax(moved)[j] - p[j].value));
    }
    EXPECT_LE(reached, p[j].worst);
    EXPECT_GE(reached, 0.999 * p[j].worst);
  }
  for (int trial = 0; trial < 200; ++trial) {
    V moved = Draw(fmt::format("corner {}", trial), 9, 1);
    for (size_t k = 0; k < x.size(); ++k) {
      moved[k] = x[k] + (moved[k] > 0 ? 1 : -1) * std::abs(w[k]);
    }
    const V q = Softmax(moved);
    for (size_t j = 0; j < x.size(); ++j) {
      EXPECT_LE(std::abs(q[j] - p[j].value), p[j].worst);
    }
  }
}

CoreInputs OneHead(int64_t tokens, int64_t d) {
  return {.heads = 1,
          .kv_heads = 1,
          .head_dim = d,
          .scale = 0.5,
          .q = Make(tokens, d, Draw("q", tokens * d)),
          .k = Make(tokens, d, Draw("k", tokens * d)),
          .v = Make(tokens, d, Draw("v", tokens * d)),
          .d_o = Make(tokens, d, Draw("do", tokens * d))};
}

TEST(CoreReference, OneTokenLooksAtItself) {
  for (const bool causal : {false, true}) {
    CoreInputs in = OneHead(1, 4);
    in.causal = causal;
    const CoreResult r = CoreReference(in, CoreArithmetic::For(DType::kF32));
    for (int64_t i = 0; i < 4; ++i) {
      EXPECT_EQ(r.o.at(0, i).value, in.v.at(0, i).value);
      EXPECT_EQ(r.dv.at(0, i).value, in.d_o->at(0, i).value);
      EXPECT_EQ(r.dq.at(0, i).value, 0);
      EXPECT_EQ(r.dk.at(0, i).value, 0);
    }
  }
}

// With equal keys every key that is seen counts alike, and scores cannot
// matter: what is left of dq is nothing.
TEST(CoreReference, EqualKeysGiveTheMean) {
  CoreInputs in = OneHead(5, 4);
  in.causal = true;
  for (int64_t i = 0; i < 5; ++i) {
    for (int64_t j = 0; j < 4; ++j) in.k.at(i, j) = in.k.at(0, j);
  }
  const CoreResult r = CoreReference(in, CoreArithmetic::For(DType::kF64));
  for (int64_t i = 0; i < 5; ++i) {
    for (int64_t j = 0; j < 4; ++j) {
      double mean = 0;
      for (int64_t k = 0; k <= i; ++k) {
        mean += in.v.at(k, j).value / static_cast<double>(i + 1);
      }
      EXPECT_NEAR(r.o.at(i, j).value, mean, 1e-15);
      EXPECT_NEAR(r.dq.at(i, j).value, 0, 1e-15);
    }
  }
}

// With one-hot values the output is the probabilities themselves.
TEST(CoreReference, OneHotValuesGiveTheProbabilities) {
  CoreInputs in = OneHead(4, 4);
  in.causal = true;
  in.diagonal = -1;  // Not even itself: the first row sees nothing.
  for (int64_t i = 0; i < 4; ++i) {
    for (int64_t j = 0; j < 4; ++j) in.v.at(i, j).value = i == j ? 1 : 0;
  }
  const CoreResult r = CoreReference(in, CoreArithmetic::For(DType::kF64));
  for (int64_t i = 0; i < 4; ++i) {
    V x;
    for (int64_t j = 0; j < i; ++j) {
      double s = 0;
      for (int64_t c = 0; c < 4; ++c) {
        s += in.q.at(i, c).value * in.k.at(j, c).value;
      }
      x.push_back(0.5 * s);
    }
    const V p = Softmax(x);
    for (int64_t j = 0; j < 4; ++j) {
      EXPECT_NEAR(r.o.at(i, j).value, j < i ? p[static_cast<size_t>(j)] : 0,
                  1e-15)
          << i << ", " << j;
    }
  }
}

TEST(RopeReference, TurnsByTheGlobalPosition) {
  // head_dim 2 has one pair, of frequency 1; two heads.
  const Matrix x = Make(2, 4, {1, 0, 0, 2, 1, 0, 0, 2});
  const std::vector<int64_t> positions = {0, 3};
  const Arithmetic a = Arithmetic::For(DType::kF64);
  const Matrix y = RopeReference(x, 2, 10000, positions, false, a);
  for (int64_t j = 0; j < 4; ++j) EXPECT_EQ(y.at(0, j).value, x.at(0, j).value);
  EXPECT_NEAR(y.at(1, 0).value, std::cos(3.0), 1e-15);
  EXPECT_NEAR(y.at(1, 1).value, std::sin(3.0), 1e-15);
  EXPECT_NEAR(y.at(1, 2).value, -2 * std::sin(3.0), 1e-15);
  EXPECT_NEAR(y.at(1, 3).value, 2 * std::cos(3.0), 1e-15);
}

TEST(RopeReference, PairsAreHalvesApartAndSlowDown) {
  Matrix x = Make(1, 6, {1, 1, 1, 0, 0, 0});
  const Matrix y = RopeReference(x, 6, 1000, std::vector<int64_t>{50}, false,
                                 Arithmetic::For(DType::kF64));
  for (int64_t i = 0; i < 3; ++i) {
    const double angle = 50 * std::pow(10.0, -i);  // 1000^(-2 i / 6)
    EXPECT_NEAR(y.at(0, i).value, std::cos(angle), 1e-13);
    EXPECT_NEAR(y.at(0, i + 3).value, std::sin(angle), 1e-13);
  }
}

TEST(RopeReference, BackwardUndoesIt) {
  const Matrix x = Make(3, 8, Draw("x", 24));
  const std::vector<int64_t> positions = {7, 131071, 2};
  const Arithmetic a = Arithmetic::For(DType::kF32);
  const Matrix y = RopeReference(x, 4, 500000, positions, false, a);
  const Matrix z = RopeReference(y, 4, 500000, positions, true, a);
  for (size_t i = 0; i < x.values.size(); ++i) {
    EXPECT_NEAR(z.values[i].value, x.values[i].value, 1e-15);
    EXPECT_GT(std::abs(y.values[i].value - x.values[i].value), 1e-6);
  }
}

}  // namespace
}  // namespace shardproof
