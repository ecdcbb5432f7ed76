#include "reference/probe.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <numeric>
#include <random>
#include <vector>

#include "reference/product.h"

namespace shardproof {
namespace {

using V = std::vector<double>;

// Root of the mean of squares.
double Rms(const V& x) {
  double sum = 0;
  for (const double v : x) sum += v * v;
  return std::sqrt(sum / static_cast<double>(x.size()));
}

// Deviations of `f` from its value in `probes` probes.
template <class F>
V DeviationsOf(int probes, F f) {
  const double exact = f().value;
  V out;
  for (int k = 0; k < probes; ++k) {
    const Probe probe(static_cast<uint64_t>(k));
    out.push_back(f().value - exact);
  }
  return out;
}

// With S the mean of K squares of normal numbers of variance 1, E exp(-t^2 S /
// 2) is exp(-lambda^2 / 2).
TEST(Probe, LambdaIsThatOfAnEstimatedDeviation) {
  EXPECT_EQ(ProbedLambda(7, 0), HUGE_VAL);
  EXPECT_NEAR(ProbedLambda(7, 1 << 30), 7, 1e-6);
  EXPECT_NEAR(ProbedLambda(7, 16), 18.06, 0.01);
  EXPECT_NEAR(ProbedLambda(7, 32), 10.77, 0.01);
  constexpr int kK = 8, kTrials = 400000;
  constexpr double kLambda = 2;
  const double t = ProbedLambda(kLambda, kK);
  std::mt19937_64 random(1);
  std::normal_distribution<double> normal;
  double mean = 0;
  for (int i = 0; i < kTrials; ++i) {
    double s = 0;
    for (int k = 0; k < kK; ++k) s += std::pow(normal(random), 2) / kK;
    mean += std::exp(-t * t * s / 2) / kTrials;
  }
  EXPECT_NEAR(mean, std::exp(-kLambda * kLambda / 2), 0.002);
}

TEST(Probe, OnlyWhileItLives) {
  const Bounded x = {1, 0.25, 0.125};
  const auto same = [&] {
    return Rounded(x, DType::kBF16).worst == 0.25 + 0x1p-8 * 1.25 + 0x1p-134;
  };
  EXPECT_TRUE(same());
  {
    const Probe probe(1);
    EXPECT_TRUE(Probe::Active());
    EXPECT_FALSE(same());
    const double value = Rounded(x, DType::kBF16).value;
    EXPECT_NE(value, 1);
    {
      const Probe other(2);
      EXPECT_NE(Rounded(x, DType::kBF16).value, value);
    }
    // The outer one again, and the same number errs the same way.
    EXPECT_EQ(Rounded(x, DType::kBF16).value, value);
  }
  EXPECT_FALSE(Probe::Active());
  EXPECT_TRUE(same());
}

// Each kind of rounding has the deviation that the header gives it.
TEST(Probe, DeviationsAreThoseDeclared) {
  constexpr int kProbes = 4000;
  constexpr double u = 0x1p-8;
  struct Kind {
    const char* name;
    std::function<Bounded()> f;
    double deviation;
  };
  const V a = {0.3, -1.7, 2.2, 0.9}, b = {1.1, 0.4, -0.7, 1.9};
  std::vector<Bounded> x, y;
  double magnitude = 0, sum = 0;
  for (size_t i = 0; i < a.size(); ++i) {
    x.push_back({a[i]});
    y.push_back({b[i]});
    magnitude += std::abs(a[i] * b[i]);
    sum += std::abs(a[i]);
  }
  const std::vector<Kind> kinds = {
      {"rounded", [] { return Rounded({3}, u); }, 3 * u},
      {"underflow", [] { return Rounded({0}, u, 0.5); }, 0.25},
      {"accumulated", [] { return Accumulated({1}, 5, 100, u); }, 50 * u},
      {"dot", [&] { return Dot(x, y, u); }, 2 * u * magnitude},
      {"sum", [&] { return Sum(x, u, 0, 0); }, std::sqrt(3) * u * sum},
      {"stored sum", [&] { return Sum(x, 0, u, 2); }, std::sqrt(2) * u * sum},
      // g and s, of deviation 1 each.
      {"exp", [] { return Exp({1.5}, u, 4); },
       std::sqrt(2) * 4 * u * std::exp(1.5)},
      {"silu", [] { return Silu({1.5}, u, 4); }, std::sqrt(2) * 8 * u * 1.5}};
  for (const Kind& k : kinds) {
    const V d = DeviationsOf(kProbes, k.f);
    // The deviation of an estimated deviation is 1 in sqrt(2 K).
    EXPECT_NEAR(Rms(d) / k.deviation, 1, 5 / std::sqrt(2.0 * kProbes))
        << k.name;
    EXPECT_NEAR(std::accumulate(d.begin(), d.end(), 0.0) / kProbes, 0,
                5 * k.deviation / std::sqrt(kProbes))
        << k.name;
  }
}

// Numbers that are rounded to the same one err alike, others do not.
TEST(Probe, EqualNumbersErrAlike) {
  constexpr int kTerms = 400;
  const auto sum = [](double step) {
    Bounded total;
    for (int i = 0; i < kTerms; ++i) {
      total = total + Rounded({1 + 0.37 * step * i}, DType::kBF16);
    }
    return total;
  };
  const V alike = DeviationsOf(200, [&] { return sum(0); });
  const V near = DeviationsOf(200, [&] { return sum(1e-6); });
  const V apart = DeviationsOf(200, [&] { return sum(0.01); });
  const double u = 0x1p-8;
  EXPECT_NEAR(Rms(alike) / (kTerms * u), 1, 0.25);
  EXPECT_NEAR(Rms(near) / (kTerms * u), 1, 0.25);
  // sqrt(sum x^2) u, were they independent; some are equal in bf16.
  double squares = 0;
  for (int i = 0; i < kTerms; ++i) squares += std::pow(1 + 0.0037 * i, 2);
  EXPECT_GT(Rms(apart), 0.75 * std::sqrt(squares) * u);
  EXPECT_LT(Rms(apart), 3 * std::sqrt(squares) * u);
}

// A function that is always 4 units too large, at 1000 arguments.
TEST(Probe, BiasOfAFunctionIsSeen) {
  constexpr int kTerms = 1000;
  constexpr double u = 0x1p-24;
  std::vector<Bounded> x(kTerms);
  for (int i = 0; i < kTerms; ++i) x[static_cast<size_t>(i)].value = i * 2e-3;
  const auto sum = [&] {
    Bounded total;
    for (const Bounded& v : x) total = total + Exp(v, u, 4);
    return total;
  };
  const Bounded exact = sum();
  double biased = 0;
  for (const Bounded& v : x) biased += std::exp(v.value) * (1 + 4 * u);
  for (uint64_t seed = 0; seed < 50; ++seed) {
    Deviations d(1);
    for (uint64_t k = 0; k < 32; ++k) {
      const Probe probe(100 * seed + k);
      d.Add(std::span(&exact, 1), std::vector<Bounded>{sum()});
    }
    std::vector<Bounded> bound = {exact};
    d.Tighten(7, bound);
    EXPECT_LE(std::abs(biased - exact.value), bound[0].likely) << seed;
  }
}

TEST(Probe, TightensAndNeverLoosens) {
  std::vector<Bounded> y = {{1, 100, 50}, {1, 100, 1}, {1, HUGE_VAL, HUGE_VAL}};
  Deviations d(3);
  for (const double e : {0.5, -0.5}) {
    d.Add(y, std::vector<Bounded>{{1 + e}, {1 + e}, {1 + e}});
  }
  std::vector<Bounded> z = y;
  d.Tighten(1, z);
  const double t = 0.5 * std::sqrt(2 * std::expm1(0.5));
  EXPECT_DOUBLE_EQ(z[0].Likely(1), t);
  EXPECT_EQ(z[0].worst, 100);
  EXPECT_DOUBLE_EQ(z[2].Likely(1), t);
  EXPECT_EQ(z[2].worst, HUGE_VAL);
  d.Tighten(3, z = y);
  EXPECT_EQ(z[1].Likely(3), 1);
  // A probe that overflows says nothing.
  d.Add(y, std::vector<Bounded>{{NAN}, {HUGE_VAL}, {1}});
  d.Tighten(1, z = y);
  EXPECT_EQ(z[0].Likely(1), 50);
  EXPECT_EQ(z[1].Likely(1), 1);
}

// A product so large that threads share it: equal columns err alike, whichever
// thread makes them, and none is left exact.
TEST(Probe, ReachesTheThreadsOfALargeProduct) {
  constexpr int64_t kRows = 32, kTerms = 128, kColumns = 8192;
  Tensor a(DType::kF32, {kRows, kTerms}), b(DType::kF32, {kTerms, kColumns});
  for (int64_t i = 0; i < a.num_elements(); ++i) {
    a.data<float>()[i] = static_cast<float>(i % 37 - 18) / 7;
  }
  for (int64_t i = 0; i < b.num_elements(); ++i) {
    b.data<float>()[i] = static_cast<float>(i / kColumns % 11 - 5) / 3;
  }
  const auto product = [&] {
    return internal::Product(
        internal::Operand::RowsOf(ConstTensorView(a.view()), {}),
        internal::Source::Of(ConstTensorView(b.view())),
        Arithmetic::For(DType::kF32));
  };
  const Matrix exact = product();
  const Probe probe(3);
  const Matrix probed = product();
  for (int64_t i = 0; i < kRows; ++i) {
    EXPECT_NE(probed.at(i, 0).value, exact.at(i, 0).value) << i;
    for (int64_t j = 1; j < kColumns; ++j) {
      ASSERT_EQ(probed.at(i, j).value, probed.at(i, 0).value) << i << " " << j;
    }
  }
}

}  // namespace
}  // namespace shardproof
