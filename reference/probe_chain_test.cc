// Probed bounds of a whole transformer block, held against one that is written
// down once more and rounds in earnest, to bf16 wherever it says so.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <numeric>
#include <random>
#include <string>
#include <vector>

#include "reference/compare.h"
#include "reference/probe.h"
#include "reference/random.h"
#include "reference/transformer_block.h"

namespace shardproof {
namespace {

// Those of the layer's case.
constexpr int kSequences = 2, kLength = 5, kHeads = 8, kKv = 4, kD = 4,
              kHidden = 24, kWidth = 20, kTokens = kSequences * kLength,
              kQkv = (kHeads + 2 * kKv) * kD;
constexpr int kProbes = 32;

struct M {
  int rows = 0, cols = 0;
  std::vector<float> v = {};
  M() = default;
  M(int r, int c) : rows(r), cols(c), v(static_cast<size_t>(r * c)) {}
  float& at(int i, int j) { return v[static_cast<size_t>(i * cols + j)]; }
  float at(int i, int j) const { return v[static_cast<size_t>(i * cols + j)]; }
  M T() const {
    M t(cols, rows);
    for (int i = 0; i < rows; ++i) {
      for (int j = 0; j < cols; ++j) t.at(j, i) = at(i, j);
    }
    return t;
  }
};

// The block's tensors, of a seed.
struct Data {
  Data(bool llama, DType dtype, uint64_t seed, double x_scale = 1)
      : llama(llama) {
    const auto draw = [&](const char* name, int rows, int cols, double scale) {
      Tensor& t = tensors[name] =
          rows == 0 ? Tensor(dtype, {cols}) : Tensor(dtype, {rows, cols});
      Fill(Uniform(dtype, scale), {seed, TensorId(name)}, 0, t.num_elements(),
           t.raw());
      M& m = matrices[name] = M(std::max(1, rows), cols);
      std::vector<double> values(m.v.size());
      ToDouble(dtype, t.raw(), t.num_elements(), values.data());
      std::copy(values.begin(), values.end(), m.v.begin());
    };
    const auto weight = [&](const char* name, int rows, int cols) {
      draw(name, rows, cols, 3 / std::sqrt(cols));
    };
    draw("x", kTokens, kHidden, x_scale);
    draw("dy", kTokens, kHidden, 1);
    draw("norm1", 0, kHidden, 1);
    draw("norm2", 0, kHidden, 1);
    weight("w_qkv", kQkv, kHidden);
    weight("w_out", kHidden, kHeads * kD);
    weight("w_gate", kWidth, kHidden);
    weight("w_up", kWidth, kHidden);
    weight("w_down", kHidden, kWidth);
  }
  ConstTensorView view(const char* name) const {
    return tensors.at(name).view();
  }
  const M& operator[](const char* name) const { return matrices.at(name); }
  TransformerBlockInputs Inputs() const {
    const NormKind kind = llama ? NormKind::kRmsNorm : NormKind::kLayerNorm;
    TransformerBlockInputs in{.x = view("x"), .dy = view("dy")};
    in.norm1 = {kind, 1e-5, view("norm1")};
    in.norm2 = {kind, 1e-5, view("norm2")};
    in.attention = {.sequences = kSequences,
                    .heads = kHeads,
                    .kv_heads = kKv,
                    .head_dim = kD,
                    .x = {},
                    .w_qkv = view("w_qkv"),
                    .w_out = view("w_out")};
    in.mlp = {.activation = llama ? Activation::kSwiGlu : Activation::kGeluTanh,
              .x = {},
              .w_up = view("w_up"),
              .w_down = view("w_down")};
    if (llama) in.mlp.w_gate = view("w_gate");
    return in;
  }

  bool llama;
  std::map<std::string, Tensor, std::less<>> tensors;
  std::map<std::string, M, std::less<>> matrices;
};

// An implementation: adds in f32, in some order, stores in bf16. Row-parallel
// products are cut into `parts`, whose sums are sent in bf16.
class Honest {
 public:
  Honest(const Data& data, int order, int parts)
      : d_(data), order_(order), parts_(parts), random_(order) {
    const M x = d_["x"], dy = d_["dy"];
    const M n1 = Norm(x, "norm1");
    const M qkv = Product(n1, d_["w_qkv"].T());
    Attend(qkv, nullptr, nullptr);
    const M z = Plus(x, Cut(o_, d_["w_out"].T(), kD));
    const M n2 = Norm(z, "norm2");
    const M up = Product(n2, d_["w_up"].T());
    const M da = Product(dy, d_["w_down"]);
    M a = up, dup = up, gate, dgate;
    if (d_.llama) dgate = gate = Product(n2, d_["w_gate"].T());
    for (size_t i = 0; i < a.v.size(); ++i) {
      Activate(up.v[i], d_.llama ? gate.v[i] : 0, da.v[i], a.v[i], dup.v[i],
               d_.llama ? &dgate.v[i] : nullptr);
    }
    out["y"] = Plus(z, Cut(a, d_["w_down"].T(), 1));
    M dn2 = Cut(dup, d_["w_up"], 1);
    if (d_.llama) dn2 = Plus(dn2, Cut(dgate, d_["w_gate"], 1));
    out["dw_up"] = Product(dup.T(), n2);
    if (d_.llama) out["dw_gate"] = Product(dgate.T(), n2);
    out["dw_down_t"] = Product(a.T(), dy);
    const M dz = NormBackward(z, dn2, dy, "norm2");
    M dqkv(kTokens, kQkv);
    const M d_o = Product(dz, d_["w_out"]);
    Attend(qkv, &d_o, &dqkv);
    out["dw_out"] = Product(dz.T(), o_);
    out["dw_qkv"] = Product(dqkv.T(), n1);
    out["dx"] = NormBackward(x, Cut(dqkv, d_["w_qkv"], 0), dz, "norm1");
  }

  std::map<std::string, M> out;

 private:
  static float Store(float v) { return static_cast<float>(BFloat16(v)); }

  float Sum(std::vector<float> terms) {
    if (order_ == 1) std::reverse(terms.begin(), terms.end());
    if (order_ >= 3) std::shuffle(terms.begin(), terms.end(), random_);
    if (order_ != 2) {
      return std::accumulate(terms.begin(), terms.end(), 0.0f);
    }
    while (terms.size() > 1) {
      const size_t half = (terms.size() + 1) / 2;
      for (size_t i = half; i < terms.size(); ++i) terms[i - half] += terms[i];
      terms.resize(half);
    }
    return terms.empty() ? 0 : terms[0];
  }
  M Product(const M& a, const M& b, bool stored = true) {
    return SumOver(
        a, b, stored, [](int) { return 0; }, 1);
  }
  // Of `group` terms each; 0: as the columns of qkv go to the heads' parts.
  M Cut(const M& a, const M& b, int group) {
    const auto part = [&](int k) {
      if (group == 1) return Balanced(k, a.cols);
      int head = k / kD;
      if (head < kHeads) return Balanced(head, kHeads);
      return Balanced((head - kHeads) % kKv, kKv);
    };
    return SumOver(a, b, true, part, parts_);
  }
  // In whole numbers of terms, the first parts one more.
  int Balanced(int k, int total) const {
    for (int r = 0, end = 0; r < parts_; ++r) {
      end += total / parts_ + (r < total % parts_ ? 1 : 0);
      if (k < end) return r;
    }
    return parts_ - 1;
  }
  template <class Part>
  M SumOver(const M& a, const M& b, bool stored, Part part, int parts) {
    M c(a.rows, b.cols);
    for (int i = 0; i < a.rows; ++i) {
      for (int j = 0; j < b.cols; ++j) {
        std::vector<std::vector<float>> terms(static_cast<size_t>(parts));
        for (int k = 0; k < a.cols; ++k) {
          terms[static_cast<size_t>(part(k))].push_back(a.at(i, k) *
                                                        b.at(k, j));
        }
        std::vector<float> sums;
        for (const auto& t : terms) {
          sums.push_back(parts > 1 ? Store(Sum(t)) : Sum(t));
        }
        const float sum = Sum(sums);
        c.at(i, j) = stored ? Store(sum) : sum;
      }
    }
    return c;
  }
  static M Plus(const M& a, const M& b) {
    M c = a;
    for (size_t i = 0; i < c.v.size(); ++i) c.v[i] = Store(a.v[i] + b.v[i]);
    return c;
  }

  // Normalised elements of row i, and 1 / sigma.
  std::pair<std::vector<float>, float> Normalised(const M& x, int i) {
    std::vector<float> n(x.v.begin() + i * x.cols,
                         x.v.begin() + (i + 1) * x.cols);
    const auto width = static_cast<float>(x.cols);
    const float mean = d_.llama ? 0 : Sum(n) / width;
    std::vector<float> squares;
    for (float& v : n) {
      v -= mean;
      squares.push_back(v * v);
    }
    const float r = 1 / std::sqrt(Sum(squares) / width + 1e-5f);
    for (float& v : n) v *= r;
    return {n, r};
  }
  M Norm(const M& x, const char* weight) {
    M y = x;
    for (int i = 0; i < x.rows; ++i) {
      const auto n = Normalised(x, i).first;
      for (int j = 0; j < x.cols; ++j) {
        y.at(i, j) = Store(n[static_cast<size_t>(j)] * d_[weight].at(0, j));
      }
    }
    return y;
  }
  M NormBackward(const M& x, const M& dy, const M& more, const char* weight) {
    M dx = x;
    const auto width = static_cast<float>(x.cols);
    std::vector<std::vector<float>> terms(static_cast<size_t>(x.cols));
    for (int i = 0; i < x.rows; ++i) {
      const auto [n, r] = Normalised(x, i);
      std::vector<float> g, gn;
      for (int j = 0; j < x.cols; ++j) {
        const float nj = n[static_cast<size_t>(j)];
        g.push_back(dy.at(i, j) * d_[weight].at(0, j));
        gn.push_back(g.back() * nj);
        terms[static_cast<size_t>(j)].push_back(dy.at(i, j) * nj);
      }
      const float p = d_.llama ? 0 : Sum(g) / width, q = Sum(gn) / width;
      for (int j = 0; j < x.cols; ++j) {
        const auto at = static_cast<size_t>(j);
        dx.at(i, j) = Store(r * (g[at] - p - n[at] * q) + more.at(i, j));
      }
    }
    M& dw = out[std::string(weight)] = M(1, x.cols);
    for (int j = 0; j < x.cols; ++j) {
      dw.at(0, j) = Store(Sum(terms[static_cast<size_t>(j)]));
    }
    return dx;
  }

  void Activate(float z, float g, float da, float& a, float& dz,
                float* dg) const {
    if (d_.llama) {
      const float s = 1 / (1 + std::exp(-g)), silu = Store(g * s);
      a = Store(silu * z);
      dz = Store(da * silu);
      *dg = Store(Store(da * z) * (s * (1 + g * (1 - s))));
      return;
    }
    const float c = 0.7978845608f, w = c * (z + 0.044715f * z * z * z);
    const float t = std::tanh(w);
    a = Store(0.5f * z * (1 + t));
    dz = Store(da * (0.5f * (1 + t) +
                     0.5f * z * (1 - t * t) * c * (1 + 3 * 0.044715f * z * z)));
  }

  // o_, or with d_o the gradient of qkv.
  void Attend(const M& qkv, const M* d_o, M* dqkv) {
    if (d_o == nullptr) o_ = M(kTokens, kHeads * kD);
    const float scale = static_cast<float>(1 / std::sqrt(1.0 * kD));
    for (int s = 0; s < kSequences; ++s) {
      const int first = s * kLength;
      for (int kv = 0; kv < kKv; ++kv) {
        const M k = Block(qkv, first, (kHeads + kv) * kD);
        const M v = Block(qkv, first, (kHeads + kKv + kv) * kD);
        M dk(kLength, kD), dv(kLength, kD);
        for (int h = kv * (kHeads / kKv); h < (kv + 1) * (kHeads / kKv); ++h) {
          const M q = Block(qkv, first, h * kD);
          const M p = Probabilities(Product(q, k.T(), false), scale);
          if (d_o == nullptr) {
            Put(Product(p, v), first, h * kD, o_);
            continue;
          }
          const M dout = Block(*d_o, first, h * kD);
          const M dp = Product(dout, v.T(), false);
          M ds(kLength, kLength);
          for (int i = 0; i < kLength; ++i) {
            std::vector<float> terms;
            for (int j = 0; j <= i; ++j) {
              terms.push_back(p.at(i, j) * dp.at(i, j));
            }
            const float mean = Sum(terms);
            for (int j = 0; j <= i; ++j) {
              ds.at(i, j) = scale * (p.at(i, j) * (dp.at(i, j) - mean));
            }
          }
          Put(Product(ds, k), first, h * kD, *dqkv);
          Into(dk, Product(ds.T(), q, false));
          Into(dv, Product(p.T(), dout, false));
        }
        if (d_o == nullptr) continue;
        for (float& f : dk.v) f = Store(f);
        for (float& f : dv.v) f = Store(f);
        Put(dk, first, (kHeads + kv) * kD, *dqkv);
        Put(dv, first, (kHeads + kKv + kv) * kD, *dqkv);
      }
    }
  }
  M Probabilities(M x, float scale) {
    for (int i = 0; i < kLength; ++i) {
      float top = -1e30f;
      for (int j = 0; j <= i; ++j) {
        x.at(i, j) *= scale;
        top = std::max(top, x.at(i, j));
      }
      std::vector<float> e;
      for (int j = 0; j <= i; ++j) e.push_back(std::exp(x.at(i, j) - top));
      const float sum = Sum(e);
      for (int j = 0; j < kLength; ++j) {
        x.at(i, j) = j <= i ? Store(e[static_cast<size_t>(j)] / sum) : 0;
      }
    }
    return x;
  }
  static M Block(const M& m, int row, int column) {
    M b(kLength, kD);
    for (int i = 0; i < kLength; ++i) {
      for (int j = 0; j < kD; ++j) b.at(i, j) = m.at(row + i, column + j);
    }
    return b;
  }
  static void Put(const M& b, int row, int column, M& m) {
    for (int i = 0; i < kLength; ++i) {
      for (int j = 0; j < kD; ++j) m.at(row + i, column + j) = b.at(i, j);
    }
  }
  static void Into(M& sum, const M& term) {
    for (size_t i = 0; i < sum.v.size(); ++i) sum.v[i] += term.v[i];
  }

  const Data& d_;
  int order_;
  int parts_;
  std::mt19937 random_;
  M o_;
};

using Results = std::map<std::string, std::vector<Bounded>>;

Results ByName(const TransformerBlockResult& r, bool llama) {
  Results out = {{"y", r.y.values},
                 {"dx", r.dx.values},
                 {"norm1", r.norm1.dw.values},
                 {"norm2", r.norm2.dw.values},
                 {"dw_qkv", r.attention.dw_qkv.values},
                 {"dw_out", r.attention.dw_out.values},
                 {"dw_up", r.mlp.dw_up.values},
                 {"dw_down_t", r.mlp.dw_down_t.values}};
  if (llama) out["dw_gate"] = r.mlp.dw_gate.values;
  return out;
}

double LambdaOf(const Results& results) {
  double n = 0;
  for (const auto& [name, v] : results) n += static_cast<double>(v.size());
  return Lambda(n);
}

// Exact results, and their bounds from probes, for LambdaOf.
Results Probed(const Data& data, DType dtype, int parts, uint64_t seed) {
  const auto evaluate = [&] {
    return ByName(
        TransformerBlockReference(
            data.Inputs(), TransformerBlockArithmetic::For(dtype, parts)),
        data.llama);
  };
  Results exact = evaluate();
  std::map<std::string, Deviations> deviations;
  for (const auto& [name, v] : exact) deviations.emplace(name, v.size());
  for (uint64_t k = 0; k < kProbes; ++k) {
    const Probe probe(1000 * seed + k);
    for (const auto& [name, values] : evaluate()) {
      deviations.at(name).Add(exact.at(name), values);
    }
  }
  const double lambda = LambdaOf(exact);
  for (auto& [name, v] : exact) deviations.at(name).Tighten(lambda, v);
  return exact;
}

TEST(ProbedChain, NoHonestBlockIsRefused) {
  for (const bool llama : {true, false}) {
    std::map<std::string, double> worst;
    for (uint64_t seed = 1; seed <= 6; ++seed) {
      const Data data(llama, DType::kBF16, seed);
      for (const int parts : {1, 2, 4}) {
        const Results bounds = Probed(data, DType::kBF16, parts, seed);
        const double lambda = LambdaOf(bounds);
        for (const int order : {0, 1, 2, 3, 4}) {
          const Honest honest(data, order, parts);
          for (const auto& [name, expected] : bounds) {
            const M& got = honest.out.at(name);
            ASSERT_EQ(got.v.size(), expected.size()) << name;
            for (size_t i = 0; i < expected.size(); ++i) {
              const double e = std::abs(got.v[i] - expected[i].value);
              const double ratio = e / expected[i].Likely(lambda);
              ASSERT_LE(ratio, 1) << name << " " << i << ", seed " << seed
                                  << ", " << parts << " parts, order " << order;
              worst[name] = std::max(worst[name], ratio);
            }
          }
        }
      }
    }
    for (const auto& [name, ratio] : worst) {
      std::printf("%s %-9s worst e/likely %.3f\n", llama ? "llama" : "gpt2",
                  name.c_str(), ratio);
    }
  }
}

// Faults that the certain bounds, which are infinite here or larger than the
// values, let pass; probed bounds of elements alone find them.
TEST(ProbedChain, FaultsAreFound) {
  for (const bool llama : {true, false}) {
    const Data data(llama, DType::kBF16, 1);
    for (const int parts : {2, 4}) {
      for (const auto& [name, expected] :
           Probed(data, DType::kBF16, parts, 1)) {
        PowerCheck power(DType::kBF16);
        const size_t n = expected.size();
        const auto add = [&, &expected = expected](const std::string& fault,
                                                   size_t begin, size_t end,
                                                   double factor) {
          std::vector<double> wrong;
          for (const Bounded& b : expected) wrong.push_back(b.value);
          for (size_t i = begin; i < end; ++i) wrong[i] *= factor;
          power.Add(fault, expected, wrong, HUGE_VAL);
        };
        add("scale", 0, n, 1.0 / parts);
        for (size_t c = 0; c < static_cast<size_t>(parts); ++c) {
          add("chunk " + std::to_string(c), n * c / static_cast<size_t>(parts),
              n * (c + 1) / static_cast<size_t>(parts), 0);
        }
        // Of the tokens and features; dk of the first token and the like are 0.
        if (name == "y" || name == "dx" || name == "dw_up") {
          for (size_t row = 0; row < n; row += kHidden) {
            add("row " + std::to_string(row), row, row + kHidden, -1);
          }
        }
        EXPECT_TRUE(power.Check().ok())
            << name << ": " << power.Check().message();
      }
    }
  }
}

// In types of other unit roundoffs, data of the same distribution has bounds in
// proportion to it, as long as it is small.
TEST(ProbedChain, BoundsScaleWithTheUnitRoundoff) {
  const auto size = [](DType dtype) {
    std::map<std::string, double> relative;
    const Data data(true, DType::kBF16, 1);
    TransformerBlockArithmetic a = TransformerBlockArithmetic::For(dtype);
    const auto evaluate = [&] {
      return ByName(TransformerBlockReference(data.Inputs(), a), true);
    };
    const Results exact = evaluate();
    for (const auto& [name, y] : exact) {
      double values = 0;
      for (const Bounded& b : y) values += b.value * b.value;
      relative[name] = values;
    }
    std::map<std::string, double> squares;
    for (uint64_t k = 0; k < kProbes; ++k) {
      const Probe probe(k);
      for (const auto& [name, c] : evaluate()) {
        for (size_t i = 0; i < c.size(); ++i) {
          squares[name] += std::pow(c[i].value - exact.at(name)[i].value, 2);
        }
      }
    }
    for (auto& [name, r] : relative) {
      r = std::sqrt(squares[name] / kProbes / r) / UnitRoundoff(dtype);
    }
    return relative;
  };
  const auto half = size(DType::kF16);
  // 2^-11 and 2^-8. Each deviation is estimated from 32 probes of elements that
  // share much: to about a quarter.
  for (const auto& [name, r] : size(DType::kBF16)) {
    std::printf("%-9s deviation %.1f u in bf16, %.1f u in f16\n", name.c_str(),
                r, half.at(name));
    EXPECT_GT(r / half.at(name), 0.6) << name;
    EXPECT_LT(r / half.at(name), 1.6) << name;
  }
}

}  // namespace
}  // namespace shardproof
