// The reference against the formulas written down once more as plain loops, and
// its gradients against differences of them.
#include "reference/moe.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <numeric>
#include <string>
#include <vector>

#include "reference/random.h"

namespace shardproof {
namespace {

using V = std::vector<double>;

constexpr int kT = 9, kH = 5, kF = 4, kE = 5, kShared = 3;

struct Settings {
  bool gated = true, renormalise = true, shared = true, noise = true;
  int k = 2;
  std::vector<int64_t> tokens = {4, 0, 5};
  std::vector<int64_t> capacities = {};
};

// A mixture of experts in f64.
struct Problem {
  explicit Problem(const Settings& s) : s(s) {
    Draw("x", {kT, kH}, 1);
    Draw("router", {kE, kH}, 1);
    Draw("noise", {kT, kE}, 0.5);
    Draw("gate", {kE, kF, kH}, 1);
    Draw("up", {kE, kF, kH}, 1);
    Draw("down", {kE, kH, kF}, 1);
    Draw("shared_gate", {1, kShared, kH}, 1);
    Draw("shared_up", {1, kShared, kH}, 1);
    Draw("shared_down", {1, kH, kShared}, 1);
    Draw("dy", {kT, kH}, 1);
    Draw("d_losses", {2}, 1);
  }
  void Draw(const std::string& name, const Shape& shape, double scale) {
    Tensor& t = tensors[name] = Tensor(DType::kF64, shape);
    Fill(Uniform(DType::kF64, scale), {3, TensorId(name)}, 0, t.num_elements(),
         t.raw());
  }
  ConstTensorView view(const std::string& name) const {
    return tensors.at(name).view();
  }
  double at(const std::string& name, int i) const {
    return tensors.at(name).data<double>()[i];
  }
  MoeInputs inputs() const {
    MoeInputs in = {
        .activation = s.gated ? Activation::kSwiGlu : Activation::kGeluTanh,
        .top_k = s.k,
        .renormalise = s.renormalise,
        .auxiliary_coefficient = 3,
        .z_coefficient = 0.7,
        .tokens = s.tokens,
        .capacities = s.capacities,
        .x = view("x"),
        .router = view("router"),
        .experts = {.up = view("up"), .down = view("down")},
        .dy = view("dy"),
        .d_losses = view("d_losses")};
    if (s.noise) in.noise = view("noise");
    if (s.gated) in.experts.gate = view("gate");
    if (s.shared) {
      in.shared =
          ExpertWeights{.up = view("shared_up"), .down = view("shared_down")};
      if (s.gated) in.shared->gate = view("shared_gate");
    }
    return in;
  }

  // ffn of token t with network `e` of the stack that is called prefix + "up".
  V Ffn(const std::string& prefix, int e, int f, int t) const {
    V y(kH);
    for (int j = 0; j < f; ++j) {
      double g = 0, z = 0;
      for (int i = 0; i < kH; ++i) {
        g += at("x", t * kH + i) * at(prefix + "gate", (e * f + j) * kH + i);
        z += at("x", t * kH + i) * at(prefix + "up", (e * f + j) * kH + i);
      }
      const double a = s.gated
                           ? g / (1 + std::exp(-g)) * z
                           : z / 2 *
                                 (1 + std::tanh(std::sqrt(2 / M_PI) *
                                                (z + 0.044715 * z * z * z)));
      for (int i = 0; i < kH; ++i) {
        y[i] += a * at(prefix + "down", (e * kH + i) * f + j);
      }
    }
    return y;
  }

  // Everything forward; L = <dy, y> + d_losses losses.
  struct Forward {
    V y, weights;
    std::vector<int> chosen;
    std::vector<bool> kept;
    double auxiliary = 0, z = 0, loss = 0;
  };
  Forward Run() const {
    Forward r;
    V mean(kE), load(kE);
    std::vector<V> p(kT, V(kE));
    for (int t = 0; t < kT; ++t) {
      double sum = 0;
      V logits(kE);
      for (int e = 0; e < kE; ++e) {
        for (int i = 0; i < kH; ++i) {
          logits[e] += at("x", t * kH + i) * at("router", e * kH + i);
        }
        if (s.noise) logits[e] += at("noise", t * kE + e);
        sum += std::exp(logits[e]);
      }
      r.z += 0.7 / kT * std::log(sum) * std::log(sum);
      for (int e = 0; e < kE; ++e) {
        p[t][e] = std::exp(logits[e]) / sum;
        mean[e] += p[t][e] / kT;
      }
      std::vector<int> order(kE);
      std::iota(order.begin(), order.end(), 0);
      std::sort(order.begin(), order.end(),
                [&](int a, int b) { return logits[a] > logits[b]; });
      double share = s.renormalise ? 0 : 1;
      for (int i = 0; i < s.k && s.renormalise; ++i) share += p[t][order[i]];
      for (int i = 0; i < s.k; ++i) {
        r.chosen.push_back(order[i]);
        load[order[i]] += 1;
        r.weights.push_back(p[t][order[i]] / share);
      }
    }
    for (int e = 0; e < kE; ++e) {
      r.auxiliary += 3.0 * kE * load[e] / (s.k * kT) * mean[e];
    }
    r.y.assign(kT * kH, 0);
    for (int t = 0; t < kT; ++t) {
      for (int i = 0; i < s.k; ++i) {
        const int e = r.chosen[t * s.k + i];
        r.kept.push_back(Keeps(r.chosen, t, e));
        if (!r.kept.back()) continue;
        const V out = Ffn("", e, kF, t);
        for (int j = 0; j < kH; ++j) {
          r.y[t * kH + j] += r.weights[t * s.k + i] * out[j];
        }
      }
      const V out = s.shared ? Ffn("shared_", 0, kShared, t) : V(kH);
      for (int j = 0; j < kH; ++j) r.y[t * kH + j] += out[j];
    }
    for (int i = 0; i < kT * kH; ++i) r.loss += at("dy", i) * r.y[i];
    r.loss += at("d_losses", 0) * r.auxiliary + at("d_losses", 1) * r.z;
    return r;
  }
  // Fewer than the capacity of earlier tokens, of those that count together,
  // chose e.
  bool Keeps(const std::vector<int>& chosen, int t, int e) const {
    if (s.capacities.empty()) return true;
    int first = 0, rank = 0;
    while (t >= first + s.tokens[rank]) first += s.tokens[rank++];
    const bool own = s.capacities.size() > 1;
    int64_t earlier = 0;
    for (int i = (own ? first : 0) * s.k; i < t * s.k; ++i) {
      earlier += chosen[i] == e ? 1 : 0;
    }
    return earlier < s.capacities[own ? rank : 0];
  }

  // dL / d element i of a tensor, by differences.
  double Slope(const std::string& name, int i) {
    double& v = tensors[name].data<double>()[i];
    const double before = v, step = 1e-5;
    v = before + step;
    const double more = Run().loss;
    v = before - step;
    const double less = Run().loss;
    v = before;
    return (more - less) / (2 * step);
  }

  Settings s;
  std::map<std::string, Tensor> tensors;
};

MoeArithmetic Plain(DType dtype, int ranks) {
  return {Arithmetic::For(dtype), Arithmetic::For(dtype),
          Arithmetic::For(dtype, ranks), Arithmetic::For(dtype, ranks)};
}

std::vector<Settings> AllSettings() {
  return {{},
          {.gated = false, .renormalise = false, .k = 1},
          {.shared = false, .noise = false, .k = 3, .capacities = {3}},
          {.renormalise = false, .capacities = {1, 0, 2}},
          {.k = kE}};
}

void ExpectMatrix(const Matrix& got, const V& want, const char* what) {
  ASSERT_EQ(got.values.size(), want.size()) << what;
  for (size_t i = 0; i < want.size(); ++i) {
    ASSERT_NEAR(got.values[i].value, want[i], 1e-12) << what << " " << i;
    ASSERT_LT(got.values[i].worst, 1e-11) << what << " " << i;
  }
}

TEST(MoeReference, ForwardIsTheFormula) {
  for (const Settings& s : AllSettings()) {
    SCOPED_TRACE(fmt::format("{} choices", s.k));
    const Problem problem(s);
    const auto r = MoeReference(problem.inputs(), Plain(DType::kF64, 3));
    ASSERT_TRUE(r.ok()) << r.status().ToString();
    const Problem::Forward want = problem.Run();
    for (size_t i = 0; i < want.chosen.size(); ++i) {
      ASSERT_EQ(r->routing.chosen[i], want.chosen[i]);
      ASSERT_EQ(r->routing.kept[i], want.kept[i]);
    }
    ExpectMatrix(r->routing.weights, want.weights, "weights");
    ExpectMatrix(r->y, want.y, "y");
    EXPECT_NEAR(r->routing.auxiliary.value, want.auxiliary, 1e-12);
    EXPECT_NEAR(r->routing.z.value, want.z, 1e-12);
    EXPECT_GT(r->routing.margin, 1);
    if (!s.capacities.empty()) {
      EXPECT_GT(std::count(want.kept.begin(), want.kept.end(), false), 2);
    }
  }
}

TEST(MoeReference, GradientsAreDifferencesOfTheLoss) {
  for (const Settings& s : AllSettings()) {
    SCOPED_TRACE(fmt::format("{} choices", s.k));
    Problem problem(s);
    const auto r = MoeReference(problem.inputs(), Plain(DType::kF64, 3));
    ASSERT_TRUE(r.ok()) << r.status().ToString();
    const auto check = [&](const std::string& name, int i, const Bounded& got) {
      ASSERT_NEAR(got.value, problem.Slope(name, i), 2e-8) << name << " " << i;
      ASSERT_LT(got.worst, 1e-11);
    };
    for (int i = 0; i < kT * kH; ++i) check("x", i, r->dx.values[i]);
    for (int i = 0; i < kE * kH; ++i) check("router", i, r->d_router.values[i]);
    const auto stack = [&](const std::string& name, int f,
                           const std::vector<Matrix>& got, bool transposed) {
      for (int i = 0; i < static_cast<int>(got.size()) * f * kH; ++i) {
        const int e = i / (f * kH), j = i / kH % f, c = i % kH;
        check(name, transposed ? (e * kH + c) * f + j : i, got[e].at(j, c));
      }
    };
    stack("up", kF, r->d_up, false);
    stack("down", kF, r->d_down_t, true);
    if (s.gated) stack("gate", kF, r->d_gate, false);
    if (!s.shared) continue;
    stack("shared_up", kShared, {r->d_shared_up}, false);
    stack("shared_down", kShared, {r->d_shared_down_t}, true);
    if (s.gated) stack("shared_gate", kShared, {r->d_shared_gate}, false);
  }
}

TEST(MoeReference, WeightGradientIsTheExpertsShareOfTheLoss) {
  const Problem problem({.capacities = {2}});
  const auto r = MoeReference(problem.inputs(), Plain(DType::kF64, 3));
  ASSERT_TRUE(r.ok());
  const Problem::Forward forward = problem.Run();
  for (int i = 0; i < kT * 2; ++i) {
    double want = 0;
    const V out = problem.Ffn("", forward.chosen[i], kF, i / 2);
    for (int j = 0; j < kH && forward.kept[i]; ++j) {
      want += problem.at("dy", i / 2 * kH + j) * out[j];
    }
    EXPECT_NEAR(r->d_weights.values[i].value, want, 1e-12);
    // What is dropped has no error either.
    EXPECT_EQ(r->d_weights.values[i].worst == 0, !forward.kept[i]);
  }
}

TEST(MoeReference, SamplesAreRowsOfTheWhole) {
  const Problem problem({.capacities = {3}});
  const auto whole = MoeReference(problem.inputs(), Plain(DType::kF64, 3));
  for (const bool router : {false, true}) {
    const auto r = MoeReference(
        problem.inputs(), Plain(DType::kF64, 3),
        {.tokens = {1, 8}, .features = {0, 3}, .router_gradient = router});
    ASSERT_TRUE(whole.ok() && r.ok());
    EXPECT_EQ(r->d_router.values.empty(), !router);
    for (int i = 0; i < 2; ++i) {
      const int t = i == 0 ? 1 : 8, f = i == 0 ? 0 : 3;
      for (int j = 0; j < kH; ++j) {
        EXPECT_NEAR(r->y.at(i, j).value, whole->y.at(t, j).value, 1e-13);
        EXPECT_NEAR(r->dx.at(i, j).value, whole->dx.at(t, j).value, 1e-13);
        for (int e = 0; e < kE; ++e) {
          EXPECT_NEAR(r->d_up[e].at(i, j).value, whole->d_up[e].at(f, j).value,
                      1e-13);
          EXPECT_NEAR(r->d_down_t[e].at(i, j).value,
                      whole->d_down_t[e].at(f, j).value, 1e-13);
        }
      }
      for (int k = 0; k < 2; ++k) {
        EXPECT_NEAR(r->d_weights.at(i, k).value,
                    whole->d_weights.at(t, k).value, 1e-13);
      }
    }
  }
}

TEST(MoeReference, RefusesWhatRoundingWouldDecide) {
  Problem problem({.noise = false});
  // Token 4 sees experts 1 and 3 alike, and likes both best.
  for (int i = 0; i < kH; ++i) {
    const double x = problem.at("x", 4 * kH + i);
    problem.tensors["router"].data<double>()[1 * kH + i] = 10 * x;
    problem.tensors["router"].data<double>()[3 * kH + i] = 10 * x;
  }
  const auto r = MoeReference(problem.inputs(), Plain(DType::kF64, 3));
  EXPECT_EQ(r.status().code(), StatusCode::kInvalidArgument);
  EXPECT_NE(r.status().message().find("not determined"), std::string::npos)
      << r.status().message();
}

}  // namespace
}  // namespace shardproof
