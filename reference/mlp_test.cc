#include "reference/mlp.h"

#include <gtest/gtest.h>

#include <cmath>
#include <map>
#include <string>

#include "reference/random.h"

namespace shardproof {
namespace {

using V = std::vector<double>;

constexpr int kTokens = 6, kH = 10, kF = 14;

// The block's tensors as doubles, by name.
struct Block {
  Activation activation;
  std::map<std::string, V> t;

  Block(Activation a, DType dtype, int tokens = kTokens, int h = kH, int f = kF)
      : activation(a), tokens(tokens), h(h), f(f) {
    Draw("x", dtype, tokens * h, 2);
    Draw("w_gate", dtype, f * h, 1);
    Draw("w_up", dtype, f * h, 1);
    Draw("w_down", dtype, h * f, 1);
    Draw("b_gate", dtype, f, 1);
    Draw("b_up", dtype, f, 1);
    Draw("b_down", dtype, h, 1);
    Draw("dy", dtype, tokens * h, 1);
  }
  void Draw(const std::string& name, DType dtype, int n, double scale) {
    t[name].resize(static_cast<size_t>(n));
    FillDouble(Uniform(dtype, scale), {1, TensorId(name)}, 0, n,
               t[name].data());
  }

  int tokens, h, f;
};

// The tensors of a Block in `dtype`, and the inputs that view them.
struct Stored {
  Stored(const Block& b, DType dtype) {
    for (const auto& [name, v] : b.t) {
      const auto n = static_cast<int64_t>(v.size());
      Shape shape = {n};
      if (name == "x" || name == "dy") shape = {b.tokens, b.h};
      if (name == "w_gate" || name == "w_up") shape = {b.f, b.h};
      if (name == "w_down") shape = {b.h, b.f};
      Tensor t(dtype, shape);
      FromDouble(dtype, v.data(), n, t.raw());
      tensors[name] = std::move(t);
    }
    const bool gated = b.activation == Activation::kSwiGlu;
    const auto view = [&](const char* name) -> ConstTensorView {
      return tensors[name].view();
    };
    in.activation = b.activation;
    in.x = view("x");
    in.w_up = view("w_up");
    in.w_down = view("w_down");
    in.b_up = view("b_up");
    in.b_down = view("b_down");
    in.dy = view("dy");
    if (gated) {
      in.w_gate = view("w_gate");
      in.b_gate = view("b_gate");
    }
  }
  std::map<std::string, Tensor> tensors;
  MlpInputs in;
};

// The block written down once more, in T, with every intermediate passed through `round`.
template <typename T, typename R>
struct Honest {
  V y, dx, dw_gate, dw_up, dw_down_t, db_gate, db_up, db_down;

  Honest(const Block& b, R round) {
    const bool gated = b.activation == Activation::kSwiGlu;
    const int n = b.tokens, h = b.h, f = b.f;
    const auto get = [&](const char* name, int i) {
      return static_cast<T>(b.t.at(name)[static_cast<size_t>(i)]);
    };
    std::vector<T> z(n * f), g(n * f), a(n * f), dz(n * f), dg(n * f);
    for (int t = 0; t < n; ++t) {
      for (int j = 0; j < f; ++j) {
        T zs = 0, gs = 0;
        for (int i = 0; i < h; ++i) {
          zs += get("x", t * h + i) * get("w_up", j * h + i);
          gs += get("x", t * h + i) * get("w_gate", j * h + i);
        }
        z[t * f + j] = round(zs + get("b_up", j));
        g[t * f + j] = round(gs + get("b_gate", j));
        a[t * f + j] = round(Act(gated, z[t * f + j], g[t * f + j]));
      }
    }
    for (int t = 0; t < n; ++t) {
      for (int o = 0; o < h; ++o) {
        T s = 0;
        for (int j = 0; j < f; ++j)
          s += a[t * f + j] * get("w_down", o * f + j);
        y.push_back(round(s + get("b_down", o)));
      }
      for (int j = 0; j < f; ++j) {
        T da = 0;
        for (int o = 0; o < h; ++o) {
          da += get("dy", t * h + o) * get("w_down", o * f + j);
        }
        da = round(da);
        const T zz = z[t * f + j], gg = g[t * f + j];
        const T sig = 1 / (1 + std::exp(-gg));
        dz[t * f + j] = round(gated ? da * (gg * sig) : da * GeluGrad(zz));
        dg[t * f + j] = round(da * zz * (sig * (1 + gg * (1 - sig))));
      }
      for (int i = 0; i < h; ++i) {
        T s = 0;
        for (int j = 0; j < f; ++j) {
          s += dz[t * f + j] * get("w_up", j * h + i);
          if (gated) s += dg[t * f + j] * get("w_gate", j * h + i);
        }
        dx.push_back(round(s));
      }
    }
    for (int j = 0; j < f; ++j) {
      T bu = 0, bg = 0;
      for (int t = 0; t < n; ++t) bu += dz[t * f + j], bg += dg[t * f + j];
      db_up.push_back(round(bu));
      db_gate.push_back(round(bg));
      for (int i = 0; i < h; ++i) {
        T u = 0, gt = 0, d = 0;
        for (int t = 0; t < n; ++t) {
          u += dz[t * f + j] * get("x", t * h + i);
          gt += dg[t * f + j] * get("x", t * h + i);
          d += a[t * f + j] * get("dy", t * h + i);
        }
        dw_up.push_back(round(u));
        dw_gate.push_back(round(gt));
        dw_down_t.push_back(round(d));
      }
    }
    for (int o = 0; o < h; ++o) {
      T s = 0;
      for (int t = 0; t < n; ++t) s += get("dy", t * h + o);
      db_down.push_back(round(s));
    }
  }

  static T W(T x) {
    return static_cast<T>(0.7978845608028654) *
           (x + static_cast<T>(0.044715) * x * x * x);
  }
  static T Act(bool gated, T z, T g) {
    if (gated) return g / (1 + std::exp(-g)) * z;
    return z / 2 * (1 + std::tanh(W(z)));
  }
  static T GeluGrad(T x) {
    const T t = std::tanh(W(x));
    return (1 + t) / 2 + x / 2 * (1 - t * t) *
                             static_cast<T>(0.7978845608028654) *
                             (1 + static_cast<T>(3 * 0.044715) * x * x);
  }
};

class MlpTest : public testing::TestWithParam<Activation> {};

// dL/dp for L = <dy, y>, by central differences of an independent forward pass in double.
TEST_P(MlpTest, GradientsAreFiniteDifferences) {
  Block b(GetParam(), DType::kF64);
  const Stored s(b, DType::kF64);
  const MlpResult r = MlpReference(s.in, MlpArithmetic::For(DType::kF64));
  const auto keep = [](double v) { return v; };
  const auto loss = [&] {
    const V y = Honest<double, decltype(keep)>(b, keep).y;
    double l = 0;
    for (size_t i = 0; i < y.size(); ++i) l += y[i] * b.t["dy"][i];
    return l;
  };
  const auto check = [&](const char* name, const Matrix& grad,
                         bool transposed) {
    V& p = b.t[name];
    ASSERT_EQ(grad.values.size(), p.size()) << name;
    for (size_t i = 0; i < p.size(); ++i) {
      const double kept = p[i];
      constexpr double kStep = 1e-5;
      p[i] = kept + kStep;
      const double up = loss();
      p[i] = kept - kStep;
      const double down = loss();
      p[i] = kept;
      size_t at = i;
      if (transposed) at = i % kF * kH + i / kF;
      ASSERT_NEAR(grad.values[at].value, (up - down) / (2 * kStep), 1e-7)
          << name << " " << i;
    }
  };
  check("x", r.dx, false);
  check("w_up", r.dw_up, false);
  check("w_down", r.dw_down_t, true);
  check("b_up", r.db_up, false);
  check("b_down", r.db_down, false);
  if (GetParam() == Activation::kSwiGlu) {
    check("w_gate", r.dw_gate, false);
    check("b_gate", r.db_gate, false);
  } else {
    EXPECT_TRUE(r.dw_gate.values.empty());
  }
}

template <typename T, typename R>
void ExpectInside(const Block& b, DType dtype, R round, double at_least) {
  const Stored s(b, dtype);
  const MlpResult r = MlpReference(s.in, MlpArithmetic::For(dtype));
  const Honest<T, R> honest(b, round);
  const auto check = [&](const char* name, const V& got, const Matrix& m) {
    ASSERT_EQ(got.size(), m.values.size()) << name;
    const double lambda = Lambda(static_cast<double>(got.size()));
    double worst = 0, likely = 0;
    for (size_t i = 0; i < got.size(); ++i) {
      const double e = std::abs(got[i] - m.values[i].value);
      worst = std::max(worst, e / m.values[i].worst);
      likely = std::max(likely, e / m.values[i].Likely(lambda));
    }
    std::printf("%s %-9s e/worst %.3f e/likely %.3f\n",
                std::string(Name(dtype)).c_str(), name, worst, likely);
    EXPECT_LE(worst, 1) << name;
    EXPECT_LE(likely, 1) << name;
    EXPECT_GE(likely, at_least) << name;
  };
  check("y", honest.y, r.y);
  check("dx", honest.dx, r.dx);
  check("dw_up", honest.dw_up, r.dw_up);
  check("dw_down", honest.dw_down_t, r.dw_down_t);
  check("db_up", honest.db_up, r.db_up);
  check("db_down", honest.db_down, r.db_down);
  if (b.activation == Activation::kSwiGlu) {
    check("dw_gate", honest.dw_gate, r.dw_gate);
    check("db_gate", honest.db_gate, r.db_gate);
  }
}

TEST_P(MlpTest, BoundsHoldInSingle) {
  ExpectInside<float>(
      Block(GetParam(), DType::kF32, 40, 60, 90), DType::kF32,
      [](float v) { return v; }, 0.005);
}

TEST_P(MlpTest, BoundsHoldInBFloat16) {
  ExpectInside<float>(
      Block(GetParam(), DType::kBF16, 40, 60, 90), DType::kBF16,
      [](float v) { return static_cast<float>(BFloat16(v)); }, 0.05);
}

TEST_P(MlpTest, BoundsHoldInDouble) {
  ExpectInside<double>(
      Block(GetParam(), DType::kF64, 20, 60, 90), DType::kF64,
      [](double v) { return v; }, 0.002);
}

// One number through the block: z, a and y are each rounded to bf16 once.
TEST(Mlp, BoundsCountTheRoundings) {
  Tensor one(DType::kBF16, Shape{1, 1});
  const double value = 1;
  FromDouble(DType::kBF16, &value, 1, one.raw());
  MlpInputs in;
  in.x = in.w_up = in.w_down = one.view();
  const MlpResult r = MlpReference(in, MlpArithmetic::For(DType::kBF16));
  const double g = GeluTanh({1}, 0, 0).value;
  const double slope = GeluTanhGrad({1}, 0, 0).value;
  const Bounded& y = r.y.at(0, 0);
  EXPECT_EQ(y.value, g);
  EXPECT_NEAR(y.worst, 0x1p-8 * (slope + 2 * g), 0.01 * y.worst);
  EXPECT_TRUE(r.dx.values.empty());
}

TEST_P(MlpTest, SamplesAgreeWithTheWhole) {
  const Block b(GetParam(), DType::kBF16);
  const Stored s(b, DType::kBF16);
  const MlpArithmetic a = MlpArithmetic::For(DType::kBF16, 2);
  const MlpResult whole = MlpReference(s.in, a);
  const Rows tokens = {0, 5, 2}, features = {13, 1};
  const MlpResult part =
      MlpReference(s.in, a, {.tokens = tokens, .features = features});
  const auto check = [](const Matrix& w, const Matrix& p, const Rows& rows) {
    ASSERT_EQ(p.rows, rows);
    for (size_t i = 0; i < rows.size(); ++i) {
      for (int64_t j = 0; j < w.cols; ++j) {
        EXPECT_EQ(p.at(i, j).value, w.at(rows[i], j).value);
        EXPECT_EQ(p.at(i, j).worst, w.at(rows[i], j).worst);
      }
    }
  };
  check(whole.y, part.y, tokens);
  check(whole.dx, part.dx, tokens);
  check(whole.dw_up, part.dw_up, features);
  check(whole.dw_down_t, part.dw_down_t, features);
  for (size_t i = 0; i < features.size(); ++i) {
    EXPECT_EQ(part.db_up.at(0, i).value, whole.db_up.at(0, features[i]).value);
  }
  EXPECT_EQ(part.db_down.values.size(), static_cast<size_t>(kH));
}

INSTANTIATE_TEST_SUITE_P(Activations, MlpTest,
                         testing::Values(Activation::kGeluTanh,
                                         Activation::kSwiGlu),
                         [](const auto& i) {
                           return i.param == Activation::kSwiGlu ? "SwiGlu"
                                                                 : "Gelu";
                         });

}  // namespace
}  // namespace shardproof
