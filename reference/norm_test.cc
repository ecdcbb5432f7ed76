#include "reference/norm.h"

#include <gtest/gtest.h>

#include <cmath>
#include <functional>
#include <map>
#include <string>

#include "reference/attention_core.h"
#include "reference/random.h"

namespace shardproof {
namespace {

using V = std::vector<double>;

// The tensors of a layer as doubles, by name, each an exact number of `dtype`.
struct Layer {
  NormKind kind;
  DType dtype;
  int tokens, h;
  bool residual;
  double epsilon = 1e-2;
  std::map<std::string, V> t;

  Layer(NormKind kind, DType dtype, int tokens, int h, bool residual,
        double offset = 0, double scale = 1)
      : kind(kind), dtype(dtype), tokens(tokens), h(h), residual(residual) {
    for (const char* name : {"x", "residual", "dy", "dz"}) {
      Draw(name, tokens * h);
    }
    for (const char* name : {"w", "b"}) Draw(name, h);
    for (double& x : t["x"]) x = Round(dtype, offset + scale * x);
  }
  void Draw(const std::string& name, int n) {
    t[name].resize(static_cast<size_t>(n));
    FillDouble(Uniform(dtype, 2), {1, TensorId(name)}, 0, n, t[name].data());
  }
};

// Its tensors in its type, and the inputs that view them.
struct Stored {
  explicit Stored(const Layer& l) {
    for (const auto& [name, v] : l.t) {
      Shape shape = {l.tokens, l.h};
      if (name == "w" || name == "b") shape = {l.h};
      Tensor t(l.dtype, shape);
      FromDouble(l.dtype, v.data(), shape.NumElements(), t.raw());
      tensors[name] = std::move(t);
    }
    const auto view = [&](const char* name) -> ConstTensorView {
      return tensors[name].view();
    };
    in = {.kind = l.kind,
          .epsilon = l.epsilon,
          .x = view("x"),
          .weight = view("w"),
          .bias = view("b"),
          .dy = view("dy")};
    if (l.residual) {
      in.residual = view("residual");
      in.dz = view("dz");
    }
  }
  std::map<std::string, Tensor> tensors;
  NormInputs in;
};

// The layer written down once more, in T; what is stored passes through
// `round`.
template <typename T, typename R>
struct Honest {
  V z, y, dx, dw, db;

  Honest(const Layer& l, R round, bool one_pass = false) {
    const auto get = [&](const char* name, int i) {
      return static_cast<T>(l.t.at(name)[static_cast<size_t>(i)]);
    };
    std::vector<T> dw_sum(l.h), db_sum(l.h);
    const auto h = static_cast<T>(l.h);
    for (int i = 0; i < l.tokens; ++i) {
      std::vector<T> x(l.h), n(l.h), g(l.h);
      T mean = 0, variance = 0, square = 0;
      for (int j = 0; j < l.h; ++j) {
        x[j] = get("x", i * l.h + j);
        if (l.residual) x[j] = round(x[j] + get("residual", i * l.h + j));
        z.push_back(x[j]);
        mean += x[j];
        square += x[j] * x[j];
      }
      mean = l.kind == NormKind::kLayerNorm ? mean / h : T{};
      for (const T v : x) variance += (v - mean) * (v - mean);
      if (one_pass) variance = square - h * mean * mean;
      const T r = 1 / std::sqrt(variance / h + static_cast<T>(l.epsilon));
      T p = 0, q = 0;
      for (int j = 0; j < l.h; ++j) {
        n[j] = (x[j] - mean) * r;
        y.push_back(round(n[j] * get("w", j) + get("b", j)));
        const T dy = get("dy", i * l.h + j);
        g[j] = dy * get("w", j);
        p += g[j];
        q += g[j] * n[j];
        dw_sum[j] += dy * n[j];
        db_sum[j] += dy;
      }
      p = l.kind == NormKind::kLayerNorm ? p / h : T{};
      q /= h;
      for (int j = 0; j < l.h; ++j) {
        const T v = r * ((g[j] - p) - n[j] * q);
        dx.push_back(round(l.residual ? v + get("dz", i * l.h + j) : v));
      }
    }
    for (int j = 0; j < l.h; ++j) {
      dw.push_back(round(dw_sum[j]));
      db.push_back(round(db_sum[j]));
    }
  }
};

double Keep(double v) { return v; }
float KeepFloat(float v) { return v; }

class NormTest : public testing::TestWithParam<NormKind> {};

// v = 4 and mean(x^2) = 25: roots are whole numbers.
TEST(Norm, ByHand) {
  const auto run = [](NormKind kind, double epsilon, V x) {
    const double w[] = {3, 6}, b[] = {1, 2}, dy[] = {1, 2};
    const Shape row = {1, 2}, column = {2};
    return NormReference({.kind = kind,
                          .epsilon = epsilon,
                          .x = {DType::kF64, row, x.data()},
                          .weight = {DType::kF64, column, w},
                          .bias = ConstTensorView{DType::kF64, column, b},
                          .dy = ConstTensorView{DType::kF64, row, dy}},
                         NormArithmetic::For(DType::kF64));
  };
  const auto expect = [](const Matrix& m, double first, double second) {
    EXPECT_DOUBLE_EQ(m.at(0, 0).value, first);
    EXPECT_DOUBLE_EQ(m.at(0, 1).value, second);
  };
  // r = 1/3, n = -2/3, 2/3; g = 3, 12; p = 7.5, q = 3.
  const NormResult l = run(NormKind::kLayerNorm, 5, {0, 4});
  expect(l.z, 0, 4);
  expect(l.y, -1, 6);
  expect(l.dx, -2.5 / 3, 2.5 / 3);
  expect(l.dw, -2.0 / 3, 4.0 / 3);
  expect(l.db, 1, 2);
  // r = 1/6, n = 1/6, 7/6; q = 87/12.
  const NormResult s = run(NormKind::kRmsNorm, 11, {1, 7});
  expect(s.y, 1.5, 9);
  expect(s.dx, (3 - 87.0 / 72) / 6, (12 - 7 * 87.0 / 72) / 6);
  expect(s.dw, 1.0 / 6, 14.0 / 6);
  expect(s.db, 1, 2);
}

// dL/dp for L = <dy, y> + <dz, z>, by central differences of an independent
// forward pass.
TEST_P(NormTest, GradientsAreFiniteDifferences) {
  for (const bool residual : {false, true}) {
    Layer l(GetParam(), DType::kF64, 5, 7, residual, 0.5);
    const Stored s(l);
    const NormResult r = NormReference(s.in, NormArithmetic::For(DType::kF64));
    const auto loss = [&] {
      const Honest<double, double (*)(double)> honest(l, Keep);
      double sum = 0;
      for (size_t i = 0; i < honest.y.size(); ++i) {
        sum += honest.y[i] * l.t["dy"][i];
        if (residual) sum += honest.z[i] * l.t["dz"][i];
      }
      return sum;
    };
    const auto check = [&](const char* name, const Matrix& gradient) {
      V& p = l.t[name];
      ASSERT_EQ(gradient.values.size(), p.size()) << name;
      for (size_t i = 0; i < p.size(); ++i) {
        const double kept = p[i];
        constexpr double kStep = 1e-5;
        p[i] = kept + kStep;
        const double up = loss();
        p[i] = kept - kStep;
        const double down = loss();
        p[i] = kept;
        ASSERT_NEAR(gradient.values[i].value, (up - down) / (2 * kStep), 1e-7)
            << name << " " << i;
      }
    };
    check("x", r.dx);
    if (residual) check("residual", r.dx);
    check("w", r.dw);
    check("b", r.db);
  }
}

// e / worst and e / likely of one tensor, the largest.
std::pair<double, double> Ratios(const V& got, const Matrix& m) {
  EXPECT_EQ(got.size(), m.values.size());
  const double lambda = Lambda(static_cast<double>(got.size()));
  double worst = 0, likely = 0;
  for (size_t i = 0; i < got.size(); ++i) {
    const double e = std::abs(got[i] - m.values[i].value);
    worst = std::max(worst, e / m.values[i].worst);
    likely = std::max(likely, e / m.values[i].Likely(lambda));
  }
  return {worst, likely};
}

template <typename T, typename R>
void ExpectInside(const Layer& l, R round, double at_least) {
  const Stored s(l);
  const NormResult r = NormReference(s.in, NormArithmetic::For(l.dtype));
  const Honest<T, R> honest(l, round);
  const auto check = [&](const char* name, const V& got, const Matrix& m) {
    const auto [worst, likely] = Ratios(got, m);
    std::printf("%s %s %s%-2s e/worst %.3f e/likely %.3f\n",
                std::string(Name(l.kind)).c_str(),
                std::string(Name(l.dtype)).c_str(),
                l.residual ? "residual " : "", name, worst, likely);
    EXPECT_LE(worst, 1) << name;
    EXPECT_LE(likely, 1) << name;
    EXPECT_GE(likely, at_least) << name;
  };
  if (l.residual && l.dtype != DType::kF64) check("z", honest.z, r.z);
  check("y", honest.y, r.y);
  check("dx", honest.dx, r.dx);
  check("dw", honest.dw, r.dw);
  check("db", honest.db, r.db);
}

TEST_P(NormTest, BoundsHoldInSingle) {
  for (const bool residual : {false, true}) {
    ExpectInside<float>(Layer(GetParam(), DType::kF32, 60, 90, residual, 1),
                        KeepFloat, 0.02);
  }
}

TEST_P(NormTest, BoundsHoldInDouble) {
  for (const bool residual : {false, true}) {
    ExpectInside<double>(Layer(GetParam(), DType::kF64, 60, 90, residual, 1),
                         Keep, 0.01);
  }
}

TEST_P(NormTest, BoundsHoldInSixteenBits) {
  for (const bool residual : {false, true}) {
    ExpectInside<float>(
        Layer(GetParam(), DType::kBF16, 60, 90, residual, 1),
        [](float v) { return static_cast<float>(BFloat16(v)); }, 0.05);
    ExpectInside<float>(
        Layer(GetParam(), DType::kF16, 60, 90, residual, 1),
        [](float v) { return static_cast<float>(Float16(v)); }, 0.05);
  }
}

// A mean of 1000 deviations: two passes stay inside the bound, one does not.
TEST(Norm, OnePassVarianceIsOutside) {
  const Layer l(NormKind::kLayerNorm, DType::kF32, 20, 90, false, 1000, 0.5);
  const Stored s(l);
  const NormResult r = NormReference(s.in, NormArithmetic::For(DType::kF32));
  using Single = Honest<float, float (*)(float)>;
  EXPECT_LE(Ratios(Single(l, KeepFloat).y, r.y).first, 1);
  EXPECT_GT(Ratios(Single(l, KeepFloat, true).y, r.y).first, 1);
}

// Inputs that are off by as much as they say: the exact result of those is
// inside the bound, and so it is not where the bound says nothing of them.
TEST_P(NormTest, CarriesTheErrorsOfItsInputs) {
  constexpr double kError = 1e-3;
  const Layer l(GetParam(), DType::kF64, 20, 9, false, 1);
  const Stored s(l);
  Matrix x{.rows = {}, .cols = l.h, .values = {}}, dy = x;
  Layer off = l;
  for (int i = 0; i < l.tokens; ++i) x.rows.push_back(i);
  dy.rows = x.rows;
  for (size_t i = 0; i < l.t.at("x").size(); ++i) {
    const double e = i * i % 7 < 3 ? kError : -kError;
    const double f = i * i % 11 < 5 ? kError : -kError;
    x.values.push_back({l.t.at("x")[i], kError, kError, 0});
    dy.values.push_back({l.t.at("dy")[i], kError, kError, 0});
    off.t["x"][i] += e;
    off.t["dy"][i] += f;
  }
  const NormWeights weights = {l.kind, l.epsilon, s.in.weight, s.in.bias};
  const NormArithmetic a = NormArithmetic::For(DType::kF64);
  const Matrix y = NormForward(x, weights, a.local);
  const NormGradients g = NormBackward(x, dy, nullptr, weights, a);
  const NormResult exact = NormReference(s.in, a);
  const Honest<double, double (*)(double)> honest(off, Keep);
  const auto check = [](const V& got, const Matrix& carried,
                        const Matrix& unaware) {
    EXPECT_LE(Ratios(got, carried).first, 1);
    EXPECT_GE(Ratios(got, carried).first, 0.02);
    EXPECT_GT(Ratios(got, unaware).first, 1);
  };
  check(honest.y, y, exact.y);
  check(honest.dx, g.dx, exact.dx);
  check(honest.dw, g.dw, exact.dw);
  check(honest.db, g.db, exact.db);
}

// On numbers without errors the two entries agree, and so do samples.
TEST_P(NormTest, SamplesAgreeWithTheWhole) {
  const Layer l(GetParam(), DType::kBF16, 11, 6, true);
  const Stored s(l);
  const NormArithmetic a = NormArithmetic::For(DType::kBF16, 3);
  const NormResult whole = NormReference(s.in, a);
  const Rows tokens = {0, 7, 10};
  const NormResult part = NormReference(s.in, a, tokens);
  const auto same = [](const Bounded& x, const Bounded& y) {
    EXPECT_EQ(x.value, y.value);
    EXPECT_EQ(x.worst, y.worst);
    EXPECT_EQ(x.likely2, y.likely2);
  };
  for (size_t i = 0; i < tokens.size(); ++i) {
    for (int64_t j = 0; j < l.h; ++j) {
      const auto at = static_cast<int64_t>(i);
      same(part.z.at(at, j), whole.z.at(tokens[i], j));
      same(part.y.at(at, j), whole.y.at(tokens[i], j));
      same(part.dx.at(at, j), whole.dx.at(tokens[i], j));
    }
  }
  for (int64_t j = 0; j < l.h; ++j) {
    same(part.dw.at(0, j), whole.dw.at(0, j));
    same(part.db.at(0, j), whole.db.at(0, j));
  }
  EXPECT_EQ(part.y.rows, tokens);
}

// dz may come of what dy comes of.
TEST_P(NormTest, ErrorsOfWhatElseArrivesMayBeThoseOfTheGradient) {
  const Layer l(GetParam(), DType::kF32, 3, 6, true);
  const Stored s(l);
  const Matrix x = ExactMatrix(s.in.x);
  Matrix dy = ExactMatrix(*s.in.dy);
  Matrix dz = ExactMatrix(*s.in.dz);
  for (Matrix* m : {&dy, &dz}) {
    for (Bounded& v : m->values) v.worst = 0.1, v.likely2 = 1e-6;
  }
  const NormWeights weights = {l.kind, l.epsilon, s.in.weight};
  const NormArithmetic a = NormArithmetic::For(DType::kF32);
  const Matrix without = NormBackward(x, dy, nullptr, weights, a).dx;
  const Matrix with = NormBackward(x, dy, &dz, weights, a).dx;
  for (size_t i = 0; i < with.values.size(); ++i) {
    const double own = std::sqrt(without.values[i].likely2);
    EXPECT_GT(own, 0);
    EXPECT_DOUBLE_EQ(std::sqrt(with.values[i].likely2), own + 1e-3);
  }
}

// Sums over three ranks: four, four and three tokens, none of them lost, and
// nothing of bf16 in them but the last rounding.
TEST(Norm, TokensOfSeveralRanks) {
  const Layer l(NormKind::kLayerNorm, DType::kBF16, 11, 6, false);
  const Stored s(l);
  const NormResult one = NormReference(s.in, NormArithmetic::For(l.dtype));
  for (const int ranks : {3, 20}) {
    const NormResult r =
        NormReference(s.in, NormArithmetic::For(l.dtype, ranks));
    for (int64_t j = 0; j < l.h; ++j) {
      for (const Matrix NormResult::*m : {&NormResult::dw, &NormResult::db}) {
        const Bounded &got = (r.*m).at(0, j), &want = (one.*m).at(0, j);
        EXPECT_NEAR(got.value, want.value, 1e-12);
        EXPECT_NEAR(got.worst, 0x1p-8 * std::abs(want.value),
                    0.02 * got.worst + 1e-4);
      }
    }
  }
}

// Without tokens, or without a bias.
TEST(Norm, Edges) {
  const Layer none(NormKind::kLayerNorm, DType::kF32, 0, 3, false);
  const Stored s(none);
  const NormResult r = NormReference(s.in, NormArithmetic::For(DType::kF32, 2));
  EXPECT_TRUE(r.y.values.empty());
  ASSERT_EQ(r.dw.values.size(), 3U);
  EXPECT_EQ(r.dw.at(0, 2).value, 0);
  // Two partial sums and the result, none of them of anything.
  EXPECT_NEAR(r.dw.at(0, 2).worst, 3 * 0x1p-150, 0x1p-170);

  // One column: a LayerNorm of it is its bias.
  const Layer one(NormKind::kLayerNorm, DType::kF32, 2, 1, false, 100);
  Stored t(one);
  const NormResult b = NormReference(t.in, NormArithmetic::For(DType::kF32));
  EXPECT_EQ(b.y.at(1, 0).value, one.t.at("b")[0]);
  t.in.bias.reset();
  t.in.dy.reset();
  const NormResult c = NormReference(t.in, NormArithmetic::For(DType::kF32));
  EXPECT_EQ(c.y.at(1, 0).value, 0);
  EXPECT_TRUE(c.dx.values.empty());
}

INSTANTIATE_TEST_SUITE_P(Kinds, NormTest,
                         testing::Values(NormKind::kLayerNorm,
                                         NormKind::kRmsNorm),
                         [](const auto& i) {
                           return i.param == NormKind::kLayerNorm ? "LayerNorm"
                                                                  : "RmsNorm";
                         });

}  // namespace
}  // namespace shardproof
