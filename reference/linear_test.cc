#include "reference/linear.h"

#include <gtest/gtest.h>

#include <cmath>
#include <functional>

#include "reference/compare.h"
#include "reference/random.h"

namespace shardproof {
namespace {

Tensor Make(DType dtype, const Shape& shape, const std::vector<double>& v) {
  Tensor t(dtype, shape);
  FromDouble(dtype, v.data(), static_cast<int64_t>(v.size()), t.raw());
  return t;
}

Tensor Draw(const Distribution& d, DType dtype, const Shape& shape,
            uint64_t id) {
  std::vector<double> v(static_cast<size_t>(shape.NumElements()));
  FillDouble(d, {1, id}, 0, shape.NumElements(), v.data());
  return Make(dtype, shape, v);
}

std::vector<double> Doubles(const Tensor& t) {
  std::vector<double> v(static_cast<size_t>(t.num_elements()));
  ToDouble(t.dtype(), t.raw(), t.num_elements(), v.data());
  return v;
}

std::vector<double> Values(const Matrix& m) {
  std::vector<double> v;
  for (const Bounded& b : m.values) v.push_back(b.value);
  return v;
}

using V = std::vector<double>;

TEST(Linear, ByHand) {
  const Tensor x = Make(DType::kF32, {2, 3}, {1, 2, 3, 4, 5, 6});
  const Tensor w = Make(DType::kF32, {2, 3}, {1, 0, -1, 2, 1, 0});
  const Tensor b = Make(DType::kF32, {2}, {10, 20});
  const Tensor dy = Make(DType::kF32, {2, 2}, {1, 2, 3, -4});
  const Arithmetic a = Arithmetic::For(DType::kF32);
  EXPECT_EQ(Values(LinearForward({x.view(), w.view(), b.view()}, a)),
            (V{8, 24, 8, 33}));
  EXPECT_EQ(Values(LinearForward({x.view(), w.view()}, a, {1})), (V{-2, 13}));
  EXPECT_EQ(Values(LinearInputGrad(dy.view(), w.view(), a)),
            (V{5, 2, -1, -5, -4, -3}));
  EXPECT_EQ(Values(LinearWeightGrad(dy.view(), x.view(), a)),
            (V{13, 17, 21, -14, -16, -18}));
  EXPECT_EQ(Values(LinearBiasGrad(dy.view(), a)), (V{4, -2}));
}

// Any sample equals the same rows of the whole, values and bounds.
TEST(Linear, SamplesAgreeWithTheWhole) {
  const Tensor x = Draw(Uniform(DType::kBF16), DType::kBF16, {40, 150}, 1);
  const Tensor w = Draw(Uniform(DType::kBF16), DType::kBF16, {70, 150}, 2);
  const Tensor dy = Draw(Uniform(DType::kBF16), DType::kBF16, {40, 70}, 3);
  const Arithmetic a = Arithmetic::For(DType::kBF16, 3);
  const Rows rows = {0, 7, 39, 11};
  const auto check = [&](const Matrix& whole, const Matrix& part) {
    ASSERT_EQ(part.rows, rows);
    ASSERT_EQ(part.cols, whole.cols);
    for (size_t i = 0; i < rows.size(); ++i) {
      for (int64_t j = 0; j < whole.cols; ++j) {
        const Bounded& p = part.at(static_cast<int64_t>(i), j);
        const Bounded& q = whole.at(rows[i], j);
        ASSERT_EQ(p.value, q.value);
        ASSERT_EQ(p.worst, q.worst);
        ASSERT_EQ(p.likely2, q.likely2);
      }
    }
  };
  const LinearInputs in{x.view(), w.view()};
  check(LinearForward(in, a), LinearForward(in, a, rows));
  check(LinearInputGrad(dy.view(), w.view(), a),
        LinearInputGrad(dy.view(), w.view(), a, rows));
  check(LinearWeightGrad(dy.view(), x.view(), a),
        LinearWeightGrad(dy.view(), x.view(), a, rows));
}

// An honest row-parallel layer: f32 accumulation, bf16 partial sums, a ring that rounds at each hop.
TEST(Linear, BoundsHoldForARowParallelLayer) {
  constexpr int kTokens = 30, kIn = 410, kOut = 50, kRanks = 4;
  const Tensor x = Draw(Uniform(DType::kBF16), DType::kBF16, {kTokens, kIn}, 1);
  const Tensor w = Draw(Normal(DType::kBF16), DType::kBF16, {kOut, kIn}, 2);
  const Tensor b = Draw(Uniform(DType::kBF16), DType::kBF16, {kOut}, 3);
  const V xs = Doubles(x), ws = Doubles(w), bs = Doubles(b);
  for (const bool ring : {false, true}) {
    Arithmetic a = Arithmetic::For(DType::kBF16, kRanks);
    a.wire_roundings = ring ? kRanks - 1 : 1;
    const Matrix y = LinearForward({x.view(), w.view(), b.view()}, a);
    const double lambda = Lambda(kTokens * kOut);
    double worst = 0, likely = 0;
    for (int t = 0; t < kTokens; ++t) {
      for (int o = 0; o < kOut; ++o) {
        float total = 0;
        int k = 0;
        for (int r = 0; r < kRanks; ++r) {
          const int end = k + kIn / kRanks + (r < kIn % kRanks ? 1 : 0);
          float s = 0;
          for (; k < end; ++k) {
            s += static_cast<float>(xs[t * kIn + k]) *
                 static_cast<float>(ws[o * kIn + k]);
          }
          if (ring) {
            total = static_cast<float>(BFloat16(total + s));
          } else {
            total += static_cast<float>(BFloat16(s));
          }
        }
        const float stored = static_cast<float>(BFloat16(total));
        const double got =
            static_cast<double>(BFloat16(stored + static_cast<float>(bs[o])));
        const Bounded& e = y.at(t, o);
        worst = std::max(worst, std::abs(got - e.value) / e.worst);
        likely = std::max(likely, std::abs(got - e.value) / e.Likely(lambda));
      }
    }
    std::printf("row parallel, %s: e/worst %.3f e/likely %.3f\n",
                ring ? "ring" : "one-shot", worst, likely);
    EXPECT_LE(worst, 1);
    EXPECT_LE(likely, 1);
    EXPECT_GE(likely, 0.15);
  }
}

// f64 under test: plain double in three orders against twice a double's precision.
TEST(Linear, DoubleUnderTest) {
  constexpr int kIn = 2000;
  const Tensor x = Draw(Uniform(DType::kF64), DType::kF64, {3, kIn}, 1);
  const Tensor w = Draw(Uniform(DType::kF64), DType::kF64, {20, kIn}, 2);
  const V xs = Doubles(x), ws = Doubles(w);
  const Matrix y =
      LinearForward({x.view(), w.view()}, Arithmetic::For(DType::kF64));
  double worst = 0;
  for (int t = 0; t < 3; ++t) {
    for (int o = 0; o < 20; ++o) {
      double sum = 0;
      __float128 exact = 0;
      for (int k = 0; k < kIn; ++k) {
        sum += xs[t * kIn + k] * ws[o * kIn + k];
        exact += static_cast<__float128>(xs[t * kIn + k]) * ws[o * kIn + k];
      }
      const Bounded& e = y.at(t, o);
      EXPECT_EQ(e.value, static_cast<double>(exact));
      worst = std::max(worst, std::abs(sum - e.value) / e.worst);
    }
  }
  EXPECT_LE(worst, 1);
  EXPECT_GT(worst, 0);
}

// Exact inputs through a narrow wire give the same bits in every order and for every split.
TEST(Linear, ExactInputsAreExactForAnySplit) {
  constexpr int kTokens = 64, kIn = 300, kOut = 96;
  const ExactLinearInputs d =
      *ExactLinear(DType::kBF16, DType::kBF16, kTokens, kIn, kOut);
  const Tensor x = Draw(d.x, DType::kBF16, {kTokens, kIn}, 1);
  const Tensor w = Draw(d.w, DType::kBF16, {kOut, kIn}, 2);
  const Tensor b = Draw(d.b, DType::kBF16, {kOut}, 3);
  for (int t : {1, 2, 3, 5}) {
    const Matrix y = LinearForward({x.view(), w.view(), b.view()},
                                   Arithmetic::For(DType::kBF16, t));
    int zeros = 0;
    for (double v : Values(y)) {
      ASSERT_EQ(v, Round(DType::kBF16, v));
      zeros += v == 0;
    }
    EXPECT_LT(zeros, kTokens * kOut / 4);
  }
}

// A dropped shard and an all-zero result must not pass under these bounds.
TEST(Linear, BoundsSeeADroppedShard) {
  const Tensor x = Draw(Uniform(DType::kBF16), DType::kBF16, {8, 400}, 1);
  const Tensor w = Draw(Uniform(DType::kBF16), DType::kBF16, {30, 400}, 2);
  const Matrix y =
      LinearForward({x.view(), w.view()}, Arithmetic::For(DType::kBF16, 4));
  const V xs = Doubles(x), ws = Doubles(w);
  V dropped = Values(y);
  for (int t = 0; t < 8; ++t) {
    for (int o = 0; o < 30; ++o) {
      for (int k = 300; k < 400; ++k) {
        dropped[t * 30 + o] -= xs[t * 400 + k] * ws[o * 400 + k];
      }
    }
  }
  PowerCheck power(DType::kBF16);
  power.Add("all zero", y.values, V(y.values.size(), 0.0));
  power.Add("rank 3 dropped", y.values, dropped);
  EXPECT_TRUE(power.Check().ok());
  EXPECT_GT(power.Power(), 0.5);
}

TEST(Linear, SampleRowsKeepsTheEnds) {
  const Rows rows = SampleRows(1000, 7, 3);
  ASSERT_EQ(rows.size(), 7u);
  EXPECT_EQ(rows.front(), 0);
  EXPECT_EQ(rows.back(), 999);
  for (size_t i = 1; i < rows.size(); ++i) EXPECT_LT(rows[i - 1], rows[i]);
  EXPECT_EQ(SampleRows(3, 7, 3), (Rows{0, 1, 2}));
  EXPECT_NE(SampleRows(1000, 7, 4), rows);
}

TEST(Linear, ZeroTokensAndUnevenParts) {
  const Tensor x = Draw(Uniform(DType::kF32), DType::kF32, {0, 4}, 1);
  const Tensor w = Draw(Uniform(DType::kF32), DType::kF32, {3, 4}, 2);
  EXPECT_TRUE(LinearForward({x.view(), w.view()}, Arithmetic::For(DType::kF32))
                  .values.empty());
  const Tensor dy = Draw(Uniform(DType::kF32), DType::kF32, {0, 3}, 3);
  const Matrix dw =
      LinearWeightGrad(dy.view(), x.view(), Arithmetic::For(DType::kF32));
  EXPECT_EQ(Values(dw), V(12, 0.0));
  // More parts than terms: some ranks have nothing to add.
  const Tensor one = Draw(Uniform(DType::kF32), DType::kF32, {1, 4}, 4);
  EXPECT_EQ(Values(LinearForward({one.view(), w.view()},
                                 Arithmetic::For(DType::kF32, 9))),
            Values(LinearForward({one.view(), w.view()},
                                 Arithmetic::For(DType::kF32))));
}

}  // namespace
}  // namespace shardproof
