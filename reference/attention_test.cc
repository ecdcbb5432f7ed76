#include "reference/attention.h"

#include <gtest/gtest.h>

#include <cmath>
#include <map>
#include <optional>
#include <string>

#include "reference/compare.h"
#include "reference/probe.h"
#include "reference/random.h"

namespace shardproof {
namespace {

using V = std::vector<double>;

// Sizes of one block, and its tensors as doubles by name.
struct Block {
  int sequences = 2, length = 5, heads = 6, kv = 2, d = 4, hidden = 7;
  bool causal = true;
  double theta = 100;
  std::map<std::string, V> t = {};

  int tokens() const { return sequences * length; }
  int rows() const { return (heads + 2 * kv) * d; }
  Block& Fill(DType dtype) {
    const auto draw = [&](const char* name, int n, double scale) {
      t[name].resize(static_cast<size_t>(n));
      FillDouble(Uniform(dtype, scale), {1, TensorId(name)}, 0, n,
                 t[name].data());
    };
    draw("x", tokens() * hidden, 2);
    draw("w_qkv", rows() * hidden, 3 / std::sqrt(hidden));
    draw("b_qkv", rows(), 1);
    draw("w_out", hidden * heads * d, 3 / std::sqrt(heads * d));
    draw("b_out", hidden, 1);
    draw("dy", tokens() * hidden, 1);
    return *this;
  }
};

struct Stored {
  Stored(const Block& b, DType dtype) {
    for (const auto& [name, v] : b.t) {
      const auto n = static_cast<int64_t>(v.size());
      Shape shape = {n};
      if (name == "x" || name == "dy") shape = {b.tokens(), b.hidden};
      if (name == "w_qkv") shape = {b.rows(), b.hidden};
      if (name == "w_out") shape = {b.hidden, b.heads * b.d};
      Tensor t(dtype, shape);
      FromDouble(dtype, v.data(), n, t.raw());
      tensors[name] = std::move(t);
    }
    in = {.sequences = b.sequences,
          .heads = b.heads,
          .kv_heads = b.kv,
          .head_dim = b.d,
          .causal = b.causal,
          .rope_theta = b.theta,
          .x = tensors["x"].view(),
          .w_qkv = tensors["w_qkv"].view(),
          .w_out = tensors["w_out"].view(),
          .b_qkv = tensors["b_qkv"].view(),
          .b_out = tensors["b_out"].view(),
          .dy = tensors["dy"].view()};
  }
  std::map<std::string, Tensor> tensors;
  AttentionInputs in;
};

// The block written down once more, element by element, in T, with what is
// stored passed through `round`.
template <typename T, typename R>
struct Honest {
  const Block& b;
  R round;
  std::map<std::string, V> out;
  std::vector<T> qkv, o, d_o, d_qkv;

  Honest(const Block& block, R r) : b(block), round(r) {
    const int n = b.tokens(), w = b.rows(), hd = b.heads * b.d;
    qkv = Linear(Get("x"), Get("w_qkv"), n, b.hidden, w, Get("b_qkv"));
    Turn(qkv, 1);
    o.resize(n * hd);
    d_o.resize(n * hd);
    d_qkv.resize(n * w);
    const std::vector<T> dy = Get("dy"), wo = Get("w_out"), x = Get("x"),
                         wq = Get("w_qkv");
    for (int t = 0; t < n; ++t) {
      for (int j = 0; j < hd; ++j) {
        T s = 0;
        for (int c = 0; c < b.hidden; ++c)
          s += dy[t * b.hidden + c] * wo[c * hd + j];
        d_o[t * hd + j] = round(s);
      }
    }
    for (int s = 0; s < b.sequences; ++s) Core(s);
    Put("y", Linear(o, wo, n, hd, b.hidden, Get("b_out")));
    for (T& v : d_qkv) v = round(v);
    Turn(d_qkv, -1);
    std::vector<T> dx(n * b.hidden), dwq(w * b.hidden), dbq(w);
    std::vector<T> dwo(b.hidden * hd), dbo(b.hidden);
    for (int t = 0; t < n; ++t) {
      for (int c = 0; c < b.hidden; ++c) {
        for (int j = 0; j < w; ++j) {
          dx[t * b.hidden + c] += d_qkv[t * w + j] * wq[j * b.hidden + c];
          dwq[j * b.hidden + c] += d_qkv[t * w + j] * x[t * b.hidden + c];
        }
        for (int j = 0; j < hd; ++j) {
          dwo[c * hd + j] += dy[t * b.hidden + c] * o[t * hd + j];
        }
        dbo[c] += dy[t * b.hidden + c];
      }
      for (int j = 0; j < w; ++j) dbq[j] += d_qkv[t * w + j];
    }
    Put("dx", dx);
    Put("dw_qkv", dwq);
    Put("db_qkv", dbq);
    Put("dw_out", dwo);
    Put("db_out", dbo);
  }

  std::vector<T> Get(const char* name) const {
    const V& v = b.t.at(name);
    return std::vector<T>(v.begin(), v.end());
  }
  void Put(const char* name, const std::vector<T>& v) {
    for (const T x : v) out[name].push_back(round(x));
  }
  std::vector<T> Linear(const std::vector<T>& x, const std::vector<T>& w, int n,
                        int in, int to, const std::vector<T>& bias) const {
    std::vector<T> y(n * to);
    for (int t = 0; t < n; ++t) {
      for (int j = 0; j < to; ++j) {
        T s = 0;
        for (int c = 0; c < in; ++c) s += x[t * in + c] * w[j * in + c];
        y[t * to + j] = round(s + bias[j]);
      }
    }
    return y;
  }
  void Turn(std::vector<T>& v, int sign) const {
    if (b.theta == 0) return;
    for (int t = 0; t < b.tokens(); ++t) {
      for (int h = 0; h < b.heads + b.kv; ++h) {
        for (int i = 0; i < b.d / 2; ++i) {
          const double a =
              t % b.length * std::pow(b.theta, -2.0 * i / b.d) * sign;
          const T c = static_cast<T>(std::cos(a)),
                  s = static_cast<T>(std::sin(a));
          T& p = v[t * b.rows() + h * b.d + i];
          T& q = v[t * b.rows() + h * b.d + i + b.d / 2];
          const T turned = round(p * c - q * s);
          q = round(q * c + p * s);
          p = turned;
        }
      }
    }
  }
  void Core(int s) {
    const int w = b.rows(), hd = b.heads * b.d;
    const T scale = static_cast<T>(1 / std::sqrt(static_cast<double>(b.d)));
    for (int h = 0; h < b.heads; ++h) {
      const int g = h / (b.heads / b.kv);
      const int kc = (b.heads + g) * b.d, vc = kc + b.kv * b.d;
      for (int i = 0; i < b.length; ++i) {
        const int row = s * b.length + i;
        const int n = b.causal ? i + 1 : b.length;
        std::vector<T> p(n), dp(n);
        T top = -1e30, sum = 0, mean = 0;
        for (int j = 0; j < n; ++j) {
          for (int c = 0; c < b.d; ++c) {
            p[j] += qkv[row * w + h * b.d + c] *
                    qkv[(s * b.length + j) * w + kc + c];
            dp[j] += d_o[row * hd + h * b.d + c] *
                     qkv[(s * b.length + j) * w + vc + c];
          }
          p[j] *= scale;
          top = std::max(top, p[j]);
        }
        for (T& v : p) sum += v = std::exp(v - top);
        for (int j = 0; j < n; ++j) {
          p[j] = round(p[j] / sum);
          mean += p[j] * dp[j];
        }
        for (int c = 0; c < b.d; ++c) {
          T sum_o = 0;
          for (int j = 0; j < n; ++j) {
            sum_o += p[j] * qkv[(s * b.length + j) * w + vc + c];
          }
          o[row * hd + h * b.d + c] = round(sum_o);
        }
        for (int j = 0; j < n; ++j) {
          const int key = s * b.length + j;
          const T ds = scale * (p[j] * (dp[j] - mean));
          for (int c = 0; c < b.d; ++c) {
            d_qkv[row * w + h * b.d + c] += ds * qkv[key * w + kc + c];
            d_qkv[key * w + kc + c] += ds * qkv[row * w + h * b.d + c];
            d_qkv[key * w + vc + c] += p[j] * d_o[row * hd + h * b.d + c];
          }
        }
      }
    }
  }
};

std::map<std::string, const Matrix*> ByName(const AttentionResult& r) {
  return {{"y", &r.y},           {"dx", &r.dx},         {"dw_qkv", &r.dw_qkv},
          {"db_qkv", &r.db_qkv}, {"dw_out", &r.dw_out}, {"db_out", &r.db_out}};
}

// dL/dp for L = <dy, y>, by central differences of an independent forward pass
// in double.
TEST(Attention, GradientsAreFiniteDifferences) {
  for (const bool causal : {true, false}) {
    for (const int kv : {1, 2, 6}) {
      Block b;
      b.causal = causal;
      b.kv = kv;
      b.Fill(DType::kF64);
      const auto keep = [](double v) { return v; };
      const auto loss = [&] {
        const V y = Honest<double, decltype(keep)>(b, keep).out["y"];
        double l = 0;
        for (size_t i = 0; i < y.size(); ++i) l += y[i] * b.t["dy"][i];
        return l;
      };
      const Stored s(b, DType::kF64);
      const AttentionResult r =
          AttentionReference(s.in, AttentionArithmetic::For(DType::kF64, 3));
      const auto results = ByName(r);
      for (const char* name : {"x", "w_qkv", "b_qkv", "w_out", "b_out"}) {
        V& p = b.t[name];
        const Matrix& gradient = *results.at(std::string("d") + name);
        ASSERT_EQ(gradient.values.size(), p.size()) << name;
        // Every third element: coprime to all sizes.
        for (size_t i = 0; i < p.size(); i += 3) {
          const double kept = p[i];
          constexpr double kStep = 1e-5;
          p[i] = kept + kStep;
          const double up = loss();
          p[i] = kept - kStep;
          const double down = loss();
          p[i] = kept;
          ASSERT_NEAR(gradient.values[i].value, (up - down) / (2 * kStep), 1e-6)
              << name << " " << i << ", " << kv << " KV heads";
        }
      }
    }
  }
}

// What the harness asks of bounds: a wrong scale and each part lost, of as many
// as the case has ranks, are incorrect.
void ExpectPower(DType dtype, const std::string& name,
                 const std::vector<Bounded>& y, bool probed) {
  PowerCheck power(dtype);
  constexpr size_t kParts = 8;
  const auto add = [&](const std::string& fault, double factor, size_t begin,
                       size_t end) {
    std::vector<double> wrong;
    for (size_t i = 0; i < y.size(); ++i) {
      wrong.push_back(i >= begin && i < end ? factor * y[i].value : y[i].value);
    }
    // Probed elements have to show it by themselves.
    power.Add(fault, y, wrong,
              probed ? std::optional<double>(HUGE_VAL) : std::nullopt);
  };
  add("all zero", 0, 0, y.size());
  add("divided", 1.0 / kParts, 0, y.size());
  for (size_t c = 0; c < kParts && y.size() >= 24 * kParts; ++c) {
    add("part " + std::to_string(c), 0, y.size() * c / kParts,
        y.size() * (c + 1) / kParts);
  }
  EXPECT_TRUE(power.Check().ok()) << name << ": " << power.Check().message();
}

template <typename T, typename R>
void ExpectInside(DType dtype, R round) {
  Block b{
      .sequences = 2, .length = 20, .heads = 6, .kv = 3, .d = 10, .hidden = 50};
  b.Fill(dtype);
  const Stored s(b, dtype);
  const auto evaluate = [&] {
    return AttentionReference(s.in, AttentionArithmetic::For(dtype));
  };
  const AttentionResult r = evaluate();
  // In bf16 bounds are as the case has them, probed.
  constexpr int kProbes = 32;
  const bool probed = SizeOf(dtype) < SizeOf(DType::kF32);
  std::vector<AttentionResult> probes;
  for (uint64_t k = 0; probed && k < kProbes; ++k) {
    const Probe probe(k);
    probes.push_back(evaluate());
  }
  const Honest<T, R> honest(b, round);
  for (const auto& [name, m] : ByName(r)) {
    std::vector<Bounded> y = m->values;
    const V& got = honest.out.at(name);
    ASSERT_EQ(got.size(), y.size()) << name;
    const double lambda = Lambda(static_cast<double>(got.size()));
    Deviations deviations(y.size());
    for (const AttentionResult& p : probes) {
      deviations.Add(m->values, ByName(p).at(name)->values);
    }
    if (probed) deviations.Tighten(lambda, y);
    double worst = 0, likely = 0;
    for (size_t i = 0; i < got.size(); ++i) {
      const double e = std::abs(got[i] - y[i].value);
      worst = std::max(worst, e / y[i].worst);
      likely = std::max(likely, e / y[i].Likely(lambda));
    }
    std::printf("%s %-7s e/worst %.3f e/likely %.3f\n",
                std::string(Name(dtype)).c_str(), name.c_str(), worst, likely);
    EXPECT_LE(worst, 1) << name;
    EXPECT_LE(likely, 1) << name;
    ExpectPower(dtype, name, y, probed);
  }
}

TEST(Attention, BoundsHoldInSingle) {
  ExpectInside<float>(DType::kF32, [](float v) { return v; });
}
TEST(Attention, BoundsHoldInBFloat16) {
  ExpectInside<float>(DType::kBF16,
                      [](float v) { return static_cast<float>(BFloat16(v)); });
}
TEST(Attention, BoundsHoldInDouble) {
  ExpectInside<double>(DType::kF64, [](double v) { return v; });
}

// However many ranks add it up, it is the same; only its bounds grow.
TEST(Attention, PartsMakeTheSame) {
  for (const int kv : {1, 2, 3, 6}) {
    Block b;
    b.kv = kv;
    b.Fill(DType::kBF16);
    const Stored s(b, DType::kBF16);
    const AttentionResult one =
        AttentionReference(s.in, AttentionArithmetic::For(DType::kBF16));
    for (const int ranks : {2, 4, 5, 6}) {
      const AttentionResult many = AttentionReference(
          s.in, AttentionArithmetic::For(DType::kBF16, ranks));
      for (const auto& [name, m] : ByName(one)) {
        const Matrix& other = *ByName(many).at(name);
        ASSERT_EQ(m->values.size(), other.values.size());
        for (size_t i = 0; i < m->values.size(); ++i) {
          ASSERT_NEAR(m->values[i].value, other.values[i].value, 1e-12)
              << name << " " << i << ", " << ranks << " ranks";
          if (name[0] == 'y' || name == "dx") {
            ASSERT_GT(other.values[i].worst, m->values[i].worst);
          }
        }
      }
    }
  }
}

TEST(Attention, SamplesAgreeWithTheWhole) {
  const Block b = Block().Fill(DType::kBF16);
  const Stored s(b, DType::kBF16);
  const AttentionArithmetic a = AttentionArithmetic::For(DType::kBF16, 4);
  const AttentionResult whole = AttentionReference(s.in, a);
  const Rows tokens = {0, 9, 3}, qkv = {1, 24, 39, 30}, out = {6, 2};
  const AttentionResult part =
      AttentionReference(s.in, a, {.tokens = tokens, .qkv = qkv, .out = out});
  const auto check = [](const Matrix& w, const Matrix& p, const Rows& rows) {
    ASSERT_EQ(p.rows, rows);
    for (size_t i = 0; i < rows.size(); ++i) {
      for (int64_t j = 0; j < w.cols; ++j) {
        const auto row = static_cast<int64_t>(i);
        EXPECT_EQ(p.at(row, j).value, w.at(rows[i], j).value);
        EXPECT_EQ(p.at(row, j).worst, w.at(rows[i], j).worst);
      }
    }
  };
  check(whole.y, part.y, tokens);
  check(whole.dx, part.dx, tokens);
  check(whole.dw_qkv, part.dw_qkv, qkv);
  check(whole.dw_out, part.dw_out, out);
  for (size_t i = 0; i < qkv.size(); ++i) {
    EXPECT_EQ(part.db_qkv.values[i].value,
              whole.db_qkv.values[static_cast<size_t>(qkv[i])].value);
  }
}

// x and dy as results of something else: exact ones give the same, inexact ones
// are believed.
TEST(Attention, TakesBoundedInputs) {
  const Block b = Block().Fill(DType::kF32);
  Stored s(b, DType::kF32);
  const AttentionArithmetic a = AttentionArithmetic::For(DType::kF32);
  const AttentionResult exact = AttentionReference(s.in, a);
  Matrix x = ExactMatrix(s.tensors["x"].view());
  Matrix dy = ExactMatrix(s.tensors["dy"].view());
  s.in.x = x;
  s.in.dy = dy;
  const AttentionResult same = AttentionReference(s.in, a);
  for (const auto& [name, m] : ByName(exact)) {
    const Matrix& other = *ByName(same).at(name);
    for (size_t i = 0; i < m->values.size(); ++i) {
      ASSERT_EQ(m->values[i].value, other.values[i].value) << name;
      ASSERT_EQ(m->values[i].worst, other.values[i].worst) << name;
    }
  }
  // Moved by as much as they are declared inexact, results stay inside.
  Block moved = b;
  constexpr double kError = 1e-4;
  for (const auto& [name, m] : {std::pair{"x", &x}, std::pair{"dy", &dy}}) {
    V& v = moved.t[name];
    for (size_t i = 0; i < v.size(); ++i) {
      v[i] += (i * 7 % 5 < 2 ? kError : -kError);
      m->values[i].worst = m->values[i].likely = kError;
    }
  }
  const AttentionResult inexact = AttentionReference(s.in, a);
  const auto keep = [](double v) { return v; };
  Honest<double, decltype(keep)> honest(moved, keep);
  for (const auto& [name, m] : ByName(inexact)) {
    double worst = 0;
    for (size_t i = 0; i < m->values.size(); ++i) {
      const double e = std::abs(honest.out[name][i] - m->values[i].value);
      worst = std::max(worst, e / m->values[i].worst);
    }
    std::printf("inexact inputs: %-7s e/worst %.3f\n", name.c_str(), worst);
    EXPECT_LE(worst, 1) << name;
    ExpectPower(DType::kF32, name, m->values, false);
  }
}

}  // namespace
}  // namespace shardproof
