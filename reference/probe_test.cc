#include "reference/probe.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <numeric>
#include <random>
#include <vector>

#include "reference/product.h"
#include "reference/random.h"

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
V DeviationsOf(int probes, const F& f) {
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

// Of the upper tail of a normal distribution.
double Above(double x) { return 0.5 * std::erfc(x / std::sqrt(2.0)); }

// Moments, and how often a number lies beyond each of a few: 5 standard
// deviations of each count are allowed.
TEST(Probe, NormalNumbersAreNormal) {
  constexpr int kDraws = 1 << 22;
  constexpr double kN = kDraws;
  // E x^k, and E x^2k for its variance.
  constexpr double kMoments[] = {1, 0,   1, 0,   3, 0,    15,
                                 0, 105, 0, 945, 0, 10395};
  constexpr double kBeyond[] = {0,   0.215, 0.5, 1, 2,  3,
                                3.5, 3.654, 3.8, 4, 4.4};
  V moments(7), beyond(2 * std::size(kBeyond));
  for (int i = 0; i < kDraws; ++i) {
    const double x = internal::StandardNormal(
        RandomBits({.seed = 3}, static_cast<uint64_t>(i)));
    double power = 1;
    for (double& m : moments) {
      m += power / kN;
      power *= x;
    }
    for (size_t b = 0; b < std::size(kBeyond); ++b) {
      beyond[2 * b] += x > kBeyond[b] ? 1 : 0;
      beyond[2 * b + 1] += x < -kBeyond[b] ? 1 : 0;
    }
  }
  for (size_t k = 1; k < moments.size(); ++k) {
    const double variance = kMoments[2 * k] - kMoments[k] * kMoments[k];
    EXPECT_NEAR(moments[k], kMoments[k], 5 * std::sqrt(variance / kN)) << k;
  }
  for (size_t b = 0; b < beyond.size(); ++b) {
    const double p = Above(kBeyond[b / 2]);
    EXPECT_NEAR(beyond[b], kN * p, 5 * std::sqrt(kN * p * (1 - p)))
        << kBeyond[b / 2];
  }
}

// The same of the farthest numbers, one in 4000: bits that ask for the lowest
// layer, and for a place in it that is beyond all others.
TEST(Probe, NormalNumbersHaveATail) {
  constexpr int kDraws = 1 << 18;
  constexpr double kTail = 3.6541528853610088;
  constexpr double kBeyond[] = {3.7, 3.8, 4, 4.5, 5, 5.5};
  V beyond(std::size(kBeyond));
  double negative = 0;
  for (int i = 0; i < kDraws; ++i) {
    const uint64_t bits = RandomBits({.seed = 4}, static_cast<uint64_t>(i));
    const double x =
        internal::StandardNormal((bits & ~uint64_t{255}) | uint64_t{15} << 60);
    ASSERT_GE(std::abs(x), kTail);
    negative += x < 0 ? 1 : 0;
    for (size_t b = 0; b < beyond.size(); ++b) {
      beyond[b] += std::abs(x) > kBeyond[b] ? 1 : 0;
    }
  }
  EXPECT_NEAR(negative, kDraws / 2.0, 5 * std::sqrt(kDraws / 4.0));
  for (size_t b = 0; b < beyond.size(); ++b) {
    const double p = Above(kBeyond[b]) / Above(kTail);
    EXPECT_NEAR(beyond[b], kDraws * p, 5 * std::sqrt(kDraws * p * (1 - p)))
        << kBeyond[b];
  }
}

// g is the same for numbers that are rounded to the same one, and for no others:
// of another sign, place, size or type, or in another probe.
TEST(Probe, RoundingsAreFunctionsOfWhatIsRoundedTo) {
  constexpr double u = 0x1p-8;
  const Probe probe(5);
  const auto g = [](double x, double of) {
    return internal::ProbedRounding(x, of);
  };
  for (const double x : {1.25, -1.375, 0x1.8p-997, 0x1.4p997, 0x1.fcp7}) {
    for (const double type : {u, 0x1p-24, 0x1p-53, 0x1p-24 + 0x1p-53}) {
      int exponent;
      std::frexp(x, &exponent);
      const double place = std::ldexp(type, exponent);
      for (const double off : {-0.4, 0.4}) {
        EXPECT_EQ(g(x + off * place, type), g(x, type)) << x << " " << type;
      }
      for (const double off : {-1.0, 1.0}) {
        EXPECT_NE(g(x + off * place, type), g(x, type)) << x << " " << type;
      }
      EXPECT_NE(g(-x, type), g(x, type));
      EXPECT_NE(g(2 * x, type), g(x, type));
      EXPECT_NE(g(x, type / 2), g(x, type));
      const double mine = g(x, type);
      const Probe other(6);
      EXPECT_NE(g(x, type), mine);
    }
  }
  EXPECT_NE(g(1, 0x1p-8), g(1, 0x1p-19));
  EXPECT_NE(g(0, u), g(0x1p-1074, u));
  EXPECT_EQ(g(HUGE_VAL, u), 0);
  EXPECT_EQ(g(NAN, u), 0);
  // Neighbours have nothing to do with one another.
  constexpr int kPairs = 100000;
  double sum = 0;
  for (int i = 0; i < kPairs; ++i) sum += g(i, 0x1p-24) * g(i + 1, 0x1p-24);
  EXPECT_NEAR(sum, 0, 5 * std::sqrt(kPairs));
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

// 1.1 + 0x1p-53 g is 1.1 for most g: what is stored in f64 is not known to be
// exact because few probes, in doubles, have not moved it.
TEST(Probe, DeviationsOfDoublesAreNeverNothing) {
  const std::vector<Bounded> y = {{1.1, 1, 1}};
  Deviations d(1);
  for (int k = 0; k < 4; ++k) d.Add(y, y);
  std::vector<Bounded> z = y;
  d.Tighten(7, z);
  EXPECT_GE(z[0].Likely(7), 0x1p-53 * 1.1);
  EXPECT_LE(z[0].Likely(7), 1.0001 * ProbedLambda(7, 4) * 0x1p-53 * 1.1);
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
