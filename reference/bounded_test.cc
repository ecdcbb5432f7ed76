#include "reference/bounded.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <numeric>
#include <random>
#include <vector>

#include "reference/random.h"

namespace shardproof {
namespace {

// Keeps the largest observed e / B: above 1 the bound is wrong, far below 1 it is vacuous.
class Ratio {
 public:
  void Add(double computed, const Bounded& expected, double lambda) {
    const double e = std::abs(computed - expected.value);
    worst_ = std::max(worst_, e / expected.worst);
    likely_ = std::max(likely_, e / expected.Likely(lambda));
    EXPECT_LE(expected.Likely(lambda), expected.worst);
  }
  void Expect(const char* what, double at_least) const {
    std::printf("%-24s e/worst %.3f  e/likely %.3f\n", what, worst_, likely_);
    EXPECT_LE(worst_, 1) << what;
    EXPECT_LE(likely_, 1) << what;
    EXPECT_GE(likely_, at_least) << what;
  }

 private:
  double worst_ = 0;
  double likely_ = 0;
};

constexpr int kTrials = 4000;
const double kLambda = Lambda(kTrials);

std::vector<double> Data(DType dtype, uint64_t tensor, uint64_t trial, int n) {
  std::vector<double> x(static_cast<size_t>(n));
  FillDouble(Uniform(dtype), {1, tensor, trial}, 0, n, x.data());
  return x;
}

std::vector<Bounded> Exact(const std::vector<double>& x) {
  std::vector<Bounded> y;
  y.reserve(x.size());
  for (double v : x) y.push_back({v});
  return y;
}

TEST(Bounded, HandComputed) {
  EXPECT_EQ(Gamma(3, 0.125), 0.375 / 0.625);
  EXPECT_EQ(Gamma(8, 0.125), HUGE_VAL);
  EXPECT_NEAR(Lambda(1e6), std::sqrt(2 * std::log(2e12)), 1e-12);
  const Bounded x = {3, 0.5, 0.25, 0.04};
  EXPECT_EQ(x.Likely(0), 0.25);
  EXPECT_EQ(x.Likely(1), 0.45);
  EXPECT_EQ(x.Likely(100), 0.5);
  const Bounded product = x * Bounded{-2, 0.125};
  EXPECT_EQ(product.value, -6);
  EXPECT_NEAR(product.worst, 3 * 0.125 + 2 * 0.5 + 0.0625, 1e-12);
  EXPECT_NEAR(product.likely2, 4 * 0.04, 1e-12);
  const Bounded rounded = Rounded(x, 0.5, 0.25);
  EXPECT_NEAR(rounded.worst, 0.5 + 0.5 * 3.5 + 0.125, 1e-12);
  const Bounded difference = x - Bounded{1, 0.25};
  EXPECT_EQ(difference.value, 2);
  EXPECT_NEAR(difference.worst, 0.75, 1e-12);
}

// The errors of x and of x again are one error: with lambda, twice as large.
TEST(Bounded, DependentErrorsAddUpByTheirRoots) {
  const Bounded x{3, 100, 0.5, 4};
  const Bounded twice = DependentSum(x, x);
  EXPECT_EQ(twice.value, 6);
  EXPECT_DOUBLE_EQ(twice.worst, 200);
  EXPECT_DOUBLE_EQ(twice.likely, 1);
  EXPECT_EQ(twice.likely2, 16);
  EXPECT_DOUBLE_EQ(twice.Likely(7), 2 * x.Likely(7));
  EXPECT_EQ(DependentSum(x, {1, 10, 0, 9}).likely2, 25);
}

TEST(Bounded, SumOverRanksInAnyOrder) {
  std::mt19937 order(1);
  for (const bool ring : {false, true}) {
    for (int p : {2, 3, 8, 16}) {
      Ratio ratio;
      for (int trial = 0; trial < kTrials; ++trial) {
        std::vector<double> x = Data(DType::kBF16, 1, trial, p);
        const Bounded expected =
            Sum(Exact(x), 0x1p-24, 0x1p-8, ring ? p - 1 : 1, 0x1p-133);
        std::shuffle(x.begin(), x.end(), order);
        float sum = static_cast<float>(x[0]);
        for (int r = 1; r < p; ++r) {
          sum += static_cast<float>(x[r]);
          if (ring) sum = static_cast<float>(BFloat16(sum));
        }
        ratio.Add(static_cast<double>(BFloat16(sum)), expected, kLambda);
      }
      ratio.Expect(ring ? "bf16 ring" : "bf16 one-shot", 0.1);
    }
  }
}

TEST(Bounded, DotInSingle) {
  for (int n : {5, 32, 33, 1000}) {
    Ratio ratio;
    for (int trial = 0; trial < kTrials; ++trial) {
      const std::vector<double> a = Data(DType::kF32, 1, trial, n);
      const std::vector<double> b = Data(DType::kF32, 2, trial, n);
      float sum = 0;
      for (int k = 0; k < n; ++k) {
        sum += static_cast<float>(a[k]) * static_cast<float>(b[k]);
      }
      ratio.Add(sum, Dot(Exact(a), Exact(b), 0x1p-24), kLambda);
    }
    ratio.Expect("f32 dot", n < 100 ? 0.05 : 0.005);
  }
}

// The inputs were rounded to bf16 after the value was fixed: 400 independent errors.
TEST(Bounded, DotOfRoundedInputs) {
  constexpr int kN = 400;
  Ratio ratio;
  for (int trial = 0; trial < kTrials; ++trial) {
    const std::vector<double> a = Data(DType::kF32, 1, trial, kN);
    const std::vector<double> b = Data(DType::kBF16, 2, trial, kN);
    std::vector<Bounded> rounded;
    rounded.reserve(a.size());
    for (double v : a) rounded.push_back(Rounded({v}, DType::kBF16));
    float sum = 0;
    for (int k = 0; k < kN; ++k) {
      sum += static_cast<float>(BFloat16(a[k])) * static_cast<float>(b[k]);
    }
    const Bounded expected =
        Rounded(Dot(rounded, Exact(b), 0x1p-24), DType::kBF16);
    EXPECT_LT(expected.Likely(kLambda), 0.7 * expected.worst);
    ratio.Add(static_cast<double>(BFloat16(sum)), expected, kLambda);
  }
  ratio.Expect("dot of rounded", 0.05);
}

TEST(Bounded, OperatorsCoverEveryCombinationOfErrors) {
  for (int trial = 0; trial < kTrials; ++trial) {
    const std::vector<double> v = Data(DType::kF64, 7, trial, 6);
    const Bounded a = {v[0], std::abs(v[1])};
    const Bounded b = {v[2], std::abs(v[3])};
    const double ca = a.value + v[4] * a.worst;
    const double cb = b.value + v[5] * b.worst;
    EXPECT_LE(std::abs(ca + cb - (a + b).value), (a + b).worst);
    EXPECT_LE(std::abs(ca - cb - (a - b).value), (a - b).worst);
    EXPECT_LE(std::abs(ca * cb - (a * b).value), (a * b).worst);
  }
}

float GeluF(float x) {
  return 0.5f * x *
         (1 + std::tanh(0.7978845608f * (x + 0.044715f * x * x * x)));
}
float GeluGradF(float x) {
  const float t = std::tanh(0.7978845608f * (x + 0.044715f * x * x * x));
  return 0.5f * (1 + t) +
         0.5f * x * (1 - t * t) * 0.7978845608f * (1 + 3 * 0.044715f * x * x);
}
float SigmoidF(float x) { return 1 / (1 + std::exp(-x)); }

struct Function {
  const char* name;
  Bounded (*bounded)(const Bounded&, double, double);
  float (*single)(float);
};

const Function kFunctions[] = {
    {"exp", &Exp, [](float x) { return std::exp(x); }},
    {"tanh", &Tanh, [](float x) { return std::tanh(x); }},
    {"sigmoid", &Sigmoid, &SigmoidF},
    {"silu", &Silu, [](float x) { return x * SigmoidF(x); }},
    {"silu_grad", &SiluGrad,
     [](float x) {
       const float s = SigmoidF(x);
       return s * (1 + x * (1 - s));
     }},
    {"gelu", &GeluTanh, &GeluF},
    {"gelu_grad", &GeluTanhGrad, &GeluGradF}};

TEST(Bounded, FunctionsInSingle) {
  for (const Function& f : kFunctions) {
    Ratio ratio;
    for (int trial = 0; trial < 20 * kTrials; ++trial) {
      const double x = Data(DType::kF32, 3, trial, 1)[0] * 8;
      ratio.Add(f.single(static_cast<float>(x)), f.bounded({x}, 0x1p-24, 4),
                kLambda);
    }
    ratio.Expect(f.name, 0.02);
  }
}

// Errors of the input, small and so large that the second order matters.
TEST(Bounded, FunctionsOfInexactInputs) {
  for (const Function& f : kFunctions) {
    for (double size : {1e-3, 0.1, 1.0, 4.0}) {
      Ratio ratio;
      for (int trial = 0; trial < kTrials; ++trial) {
        const std::vector<double> v = Data(DType::kF64, 5, trial, 2);
        const Bounded x = {v[0] * 6, size, size};
        // The ends of the interval are where it is worst.
        const double at = x.value + (v[1] > 0 ? size : -size);
        const Bounded y = f.bounded(x, 0x1p-53, 4);
        ratio.Add(f.bounded({at}, 0x1p-53, 4).value, y, kLambda);
      }
      ratio.Expect(f.name, 0.1);
    }
  }
}

// What is bounded by nothing, and 0 times that: no bound is a NaN, and what comes
// of a worst bound that is infinite is infinite, but for a tanh or the like.
TEST(Bounded, InfiniteBoundsStayInfinite) {
  const double inf = HUGE_VAL;
  const std::vector<Bounded> numbers = {{0},
                                        {2},
                                        {-3, 0.5, 0.25, 0.01},
                                        {0, inf},
                                        {2, inf, 0.5, 0.25},
                                        {0, inf, inf, inf},
                                        {-2, inf, inf, inf},
                                        {1, inf, 0, inf}};
  const auto check = [&](const Bounded& y, bool expect_infinite,
                         const char* what) {
    EXPECT_FALSE(std::isnan(y.worst)) << what;
    EXPECT_FALSE(std::isnan(y.likely)) << what;
    EXPECT_FALSE(std::isnan(y.likely2)) << what;
    EXPECT_FALSE(std::isnan(y.Likely(7))) << what;
    if (expect_infinite) {
      EXPECT_EQ(y.worst, inf) << what;
    }
  };
  for (const Bounded& a : numbers) {
    const bool unknown = a.worst == inf;
    for (const Bounded& b : numbers) {
      const bool either = unknown || b.worst == inf;
      check(a + b, either, "+");
      check(a - b, either, "-");
      check(a * b, either, "*");
      const std::vector<Bounded> x = {a, b}, y = {b, {0}};
      check(Dot(x, y, 0x1p-24), either, "dot");
      check(Sum(x, 0x1p-24, 0, 1), either, "sum");
    }
    check(Rounded(a, 0x1p-8), unknown, "rounded");
    check(Rounded(a, 0.0), unknown, "not rounded");
    check(Accumulated(a, unknown ? inf : 1, 100, 0x1p-8), unknown, "added");
    for (const Function& f : kFunctions) {
      check(f.bounded(a, 0x1p-24, 4), false, f.name);
    }
  }
}

TEST(Bounded, ValuesOfFunctions) {
  EXPECT_DOUBLE_EQ(GeluTanh({1}, 0, 0).value, 0.84119199060827671);
  EXPECT_DOUBLE_EQ(Silu({1}, 0, 0).value, 0.7310585786300049);
  EXPECT_EQ(Silu({-800}, 0, 0).value, 0);
  EXPECT_EQ(GeluTanh({-100}, 0, 0).value, 0);
  EXPECT_EQ(GeluTanhGrad({100}, 0, 0).value, 1);
  const double h = 1e-5;
  for (int i = 0; i <= 32; ++i) {
    const double x = -6 + 0.37 * i;
    EXPECT_NEAR(
        GeluTanhGrad({x}, 0, 0).value,
        (GeluTanh({x + h}, 0, 0).value - GeluTanh({x - h}, 0, 0).value) /
            (2 * h),
        1e-9);
    EXPECT_NEAR(
        SiluGrad({x}, 0, 0).value,
        (Silu({x + h}, 0, 0).value - Silu({x - h}, 0, 0).value) / (2 * h),
        1e-9);
  }
}

}  // namespace
}  // namespace shardproof
