// The kernels of a mixture of experts against plain loops in double, on every
// instruction set that this machine has.
#include "layers/kernels/moe.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <vector>

#include "collectives/kernels/targets.h"
#include "layers/kernels/kernel_testing.h"

namespace shardproof {
namespace {

using V = std::vector<double>;

constexpr DType kLanes[] = {DType::kF32, DType::kF64};
constexpr DType kRows[] = {DType::kF32, DType::kF64, DType::kBF16, DType::kF16};
constexpr int64_t kExperts[] = {1, 3, 8, 17, 64};
constexpr int64_t kWidths[] = {0, 1, 7, 16, 33, 1003};

Tensor Of(DType dtype, const V& values) {
  Tensor tensor(dtype, {static_cast<int64_t>(values.size())});
  FromDouble(dtype, values.data(), tensor.num_elements(), tensor.raw());
  return tensor;
}

// A routing of random logits, by the kernel.
struct Routing {
  Routing(DType lane, int64_t tokens, int64_t experts, int64_t k, bool noisy,
          bool renormalise)
      : lane(lane),
        tokens(tokens),
        experts(experts),
        k(k),
        renormalise(renormalise),
        logits(Filled(Uniform(lane, 3.0), Shape{tokens, experts}, "logits")),
        noise(Filled(Uniform(lane, 1.0), Shape{tokens, experts}, "noise")),
        p(lane, {tokens, experts}),
        w(lane, {tokens, k}),
        lse(lane, {tokens}),
        chosen(static_cast<size_t>(tokens * k), -1),
        noisy(noisy) {
    status = TopKSoftmax(Stream::Inline(), lane,
                         {.tokens = tokens,
                          .experts = experts,
                          .k = k,
                          .renormalise = renormalise,
                          .logits = logits.raw(),
                          .noise = noisy ? noise.raw() : nullptr,
                          .probabilities = p.raw(),
                          .chosen = chosen.data(),
                          .weights = w.raw(),
                          .lse = lse.raw()});
  }
  // z_te as the kernel adds it.
  V Scores() const {
    V z = Doubles(logits);
    const V n = Doubles(noise);
    for (size_t i = 0; i < z.size() && noisy; ++i) {
      z[i] =
          lane == DType::kF32 ? static_cast<float>(z[i] + n[i]) : z[i] + n[i];
    }
    return z;
  }

  DType lane;
  int64_t tokens, experts, k;
  bool renormalise;
  Tensor logits, noise, p, w, lse;
  std::vector<int32_t> chosen;
  bool noisy;
  Status status;
};

class MoeKernelTest : public testing::TestWithParam<int64_t> {
 protected:
  template <class Body>
  void ForAllRoutings(Body body) {
    const OnlyTarget only(GetParam());
    for (const DType lane : kLanes) {
      for (const int64_t experts : kExperts) {
        for (const int64_t k : {int64_t{1}, int64_t{2}, experts}) {
          if (k > experts) continue;
          const bool renormalise = k % 2 == 0;
          SCOPED_TRACE(fmt::format("{} of {} in {}", k, experts, Name(lane)));
          const Routing routing(lane, 9, experts, k, experts != 8, renormalise);
          ASSERT_TRUE(routing.status.ok()) << routing.status.ToString();
          body(routing);
        }
      }
    }
  }
  template <class Body>
  void ForAllRows(Body body) {
    const OnlyTarget only(GetParam());
    for (const DType dtype : kRows) {
      for (const int64_t width : kWidths) {
        SCOPED_TRACE(fmt::format("width {} of {}", width, Name(dtype)));
        body(dtype, width);
      }
    }
  }
};

TEST_P(MoeKernelTest, ChoosesTheLargestAndWeighsThem) {
  ForAllRoutings([](const Routing& r) {
    const V z = r.Scores(), p = Doubles(r.p), w = Doubles(r.w),
            lse = Doubles(r.lse);
    // A softmax in f32: exp and log to 1 or 2 units, a sum of 64.
    const double u = UnitRoundoff(r.lane), tolerance = 80 * u;
    for (int64_t t = 0; t < r.tokens; ++t) {
      const V row(z.begin() + t * r.experts, z.begin() + (t + 1) * r.experts);
      double sum = 0, top = *std::max_element(row.begin(), row.end());
      for (const double v : row) sum += std::exp(v - top);
      std::vector<int32_t> order(row.size());
      std::iota(order.begin(), order.end(), 0);
      std::stable_sort(order.begin(), order.end(),
                       [&](int32_t a, int32_t b) { return row[a] > row[b]; });
      double of_chosen = 0;
      for (int64_t e = 0; e < r.experts; ++e) {
        const double want = std::exp(row[e] - top) / sum;
        ASSERT_NEAR(p[t * r.experts + e], want, tolerance * want);
      }
      for (int64_t s = 0; s < r.k; ++s) {
        ASSERT_EQ(r.chosen[t * r.k + s], order[s]);
        of_chosen += std::exp(row[order[s]] - top) / sum;
      }
      for (int64_t s = 0; s < r.k; ++s) {
        const double want = std::exp(row[order[s]] - top) / sum /
                            (r.renormalise ? of_chosen : 1);
        ASSERT_NEAR(w[t * r.k + s], want, 2 * tolerance * want);
      }
      ASSERT_NEAR(lse[t], top + std::log(sum), tolerance * 8);
    }
  });
}

TEST_P(MoeKernelTest, OfEqualLogitsTheLowerIndexComesFirst) {
  const OnlyTarget only(GetParam());
  const std::vector<float> logits = {1,   2,    2,  0,   2,  // 1, 2, 4
                                     0,   0,    0,  0,   0,  // 0, 1, 2
                                     -1,  3,    -1, 5,   3,  // 3, 1, 4
                                     0.F, -0.F, -1, 0.F, -0.F};
  std::vector<float> p(20), w(12), lse(4);
  std::vector<int32_t> chosen(12);
  ASSERT_TRUE(TopKSoftmax(Stream::Inline(), DType::kF32,
                          {.tokens = 4,
                           .experts = 5,
                           .k = 3,
                           .logits = logits.data(),
                           .probabilities = p.data(),
                           .chosen = chosen.data(),
                           .weights = w.data(),
                           .lse = lse.data()})
                  .ok());
  EXPECT_EQ(chosen, (std::vector<int32_t>{1, 2, 4, 0, 1, 2, 3, 1, 4, 0, 1, 3}));
}

TEST_P(MoeKernelTest, FarLogitsDoNotOverflowAndNaNIsSeen) {
  const OnlyTarget only(GetParam());
  const float nan = std::numeric_limits<float>::quiet_NaN();
  const std::vector<float> logits = {1000, -1000, 998, 0,     0,    nan, 1, 2,
                                     nan,  0,     1,   -1e38, 3e38, 0,   0, 0};
  std::vector<float> p(16), w(8), lse(4);
  std::vector<int32_t> chosen(8);
  ASSERT_TRUE(TopKSoftmax(Stream::Inline(), DType::kF32,
                          {.tokens = 4,
                           .experts = 4,
                           .k = 2,
                           .logits = logits.data(),
                           .probabilities = p.data(),
                           .chosen = chosen.data(),
                           .weights = w.data(),
                           .lse = lse.data()})
                  .ok());
  EXPECT_EQ(chosen[0], 0);
  EXPECT_EQ(chosen[1], 2);
  EXPECT_NEAR(p[0], 1 / (1 + std::exp(-2.0)), 1e-6);
  EXPECT_EQ(p[1], 0);
  EXPECT_NEAR(lse[0], 1000 + std::log1p(std::exp(-2.0)), 1e-4);
  for (int t = 1; t < 3; ++t) {
    EXPECT_NE(chosen[2 * t], chosen[2 * t + 1]);
    for (int i = 0; i < 2; ++i) EXPECT_TRUE(std::isnan(w[2 * t + i]));
    EXPECT_TRUE(std::isnan(lse[t]));
  }
  EXPECT_EQ(p[12], 1);
}

// Against differences of L = sum dw w + sum_te a_e p_te + b/2 sum lse^2.
TEST_P(MoeKernelTest, GradientIsThatOfTheLoss) {
  const OnlyTarget only(GetParam());
  for (const bool renormalise : {false, true}) {
    constexpr int64_t kTokens = 4, kE = 11, kK = 3;
    const DType lane = DType::kF64;
    const Tensor dw = Filled(Uniform(lane), Shape{kTokens, kK}, "dw");
    const Tensor a = Filled(Uniform(lane), Shape{kE}, "a");
    const double b = 0.3;
    Tensor logits = Filled(Uniform(lane, 3.0), Shape{kTokens, kE}, "z");
    Tensor p(lane, {kTokens, kE}), w(lane, {kTokens, kK}), lse(lane, {kTokens}),
        dz(lane, {kTokens, kE});
    std::vector<int32_t> chosen(kTokens * kK);
    const auto loss = [&] {
      EXPECT_TRUE(TopKSoftmax(Stream::Inline(), lane,
                              {.tokens = kTokens,
                               .experts = kE,
                               .k = kK,
                               .renormalise = renormalise,
                               .logits = logits.raw(),
                               .probabilities = p.raw(),
                               .chosen = chosen.data(),
                               .weights = w.raw(),
                               .lse = lse.raw()})
                      .ok());
      double sum = 0;
      for (int i = 0; i < kTokens * kK; ++i) {
        sum += dw.data<double>()[i] * w.data<double>()[i];
      }
      for (int i = 0; i < kTokens * kE; ++i) {
        sum += a.data<double>()[i % kE] * p.data<double>()[i];
      }
      for (int t = 0; t < kTokens; ++t) {
        sum += b / 2 * lse.data<double>()[t] * lse.data<double>()[t];
      }
      return sum;
    };
    loss();
    ASSERT_TRUE(TopKSoftmaxGradient(Stream::Inline(), lane,
                                    {.tokens = kTokens,
                                     .experts = kE,
                                     .k = kK,
                                     .renormalise = renormalise,
                                     .probabilities = p.raw(),
                                     .chosen = chosen.data(),
                                     .weights = w.raw(),
                                     .d_weights = dw.raw(),
                                     .lse = lse.raw(),
                                     .d_probability = a.raw(),
                                     .d_lse_factor = b,
                                     .d_logits = dz.raw()})
                    .ok());
    for (int i = 0; i < kTokens * kE; ++i) {
      double& z = logits.data<double>()[i];
      const double before = z, step = 1e-5;
      z = before + step;
      const double more = loss();
      z = before - step;
      const double less = loss();
      z = before;
      ASSERT_NEAR(dz.data<double>()[i], (more - less) / (2 * step), 1e-8)
          << "logit " << i;
    }
  }
}

// The kernel in f32 and at every vector length against itself written down in
// double.
TEST_P(MoeKernelTest, GradientAtEverySize) {
  ForAllRoutings([](const Routing& r) {
    const Tensor dw = Filled(Uniform(r.lane), Shape{r.tokens, r.k}, "dw");
    const Tensor a = Filled(Uniform(r.lane), Shape{r.experts}, "a");
    Tensor dz(r.lane, {r.tokens, r.experts});
    ASSERT_TRUE(TopKSoftmaxGradient(Stream::Inline(), r.lane,
                                    {.tokens = r.tokens,
                                     .experts = r.experts,
                                     .k = r.k,
                                     .renormalise = r.renormalise,
                                     .probabilities = r.p.raw(),
                                     .chosen = r.chosen.data(),
                                     .weights = r.w.raw(),
                                     .d_weights = dw.raw(),
                                     .lse = r.lse.raw(),
                                     .d_probability = a.raw(),
                                     .d_lse_factor = 0.25,
                                     .d_logits = dz.raw()})
                    .ok());
    const V p = Doubles(r.p), w = Doubles(r.w), g = Doubles(dw),
            av = Doubles(a), lse = Doubles(r.lse), got = Doubles(dz);
    for (int64_t t = 0; t < r.tokens; ++t) {
      double shared = 0, of_chosen = 1, c = 0;
      if (r.renormalise) of_chosen = 0;
      for (int64_t s = 0; s < r.k && r.renormalise; ++s) {
        shared += g[t * r.k + s] * w[t * r.k + s];
        of_chosen += p[t * r.experts + r.chosen[t * r.k + s]];
      }
      V dp(av);
      for (int64_t s = 0; s < r.k; ++s) {
        dp[r.chosen[t * r.k + s]] += (g[t * r.k + s] - shared) / of_chosen;
      }
      for (int64_t e = 0; e < r.experts; ++e) c += dp[e] * p[t * r.experts + e];
      for (int64_t e = 0; e < r.experts; ++e) {
        const double want = p[t * r.experts + e] * (dp[e] - c + 0.25 * lse[t]);
        ASSERT_NEAR(got[t * r.experts + e], want,
                    100 * UnitRoundoff(r.lane) * (1 + std::abs(dp[e])));
      }
    }
  });
}

TEST_P(MoeKernelTest, SumsOfARouting) {
  ForAllRoutings([](const Routing& r) {
    V sums(static_cast<size_t>(2 * r.experts + 1), -1);
    ASSERT_TRUE(RoutingSums(Stream::Inline(), r.lane,
                            {.tokens = r.tokens,
                             .experts = r.experts,
                             .k = r.k,
                             .probabilities = r.p.raw(),
                             .chosen = r.chosen.data(),
                             .lse = r.lse.raw(),
                             .sums = sums.data()})
                    .ok());
    const V p = Doubles(r.p), lse = Doubles(r.lse);
    double z = 0;
    for (const double l : lse) z += l * l;
    ASSERT_NEAR(sums[2 * r.experts], z, 1e-13 * z);
    for (int64_t e = 0; e < r.experts; ++e) {
      double of_e = 0;
      for (int64_t t = 0; t < r.tokens; ++t) of_e += p[t * r.experts + e];
      ASSERT_EQ(sums[e], std::count(r.chosen.begin(), r.chosen.end(), e));
      ASSERT_NEAR(sums[r.experts + e], of_e, 1e-14 * r.tokens);
    }
  });
}

// Integers times powers of two: exact, so every element must be right.
TEST_P(MoeKernelTest, RowsAreGatheredAndScaled) {
  ForAllRows([](DType dtype, int64_t width) {
    const DType lane = Accumulator(dtype);
    const Tensor source = Filled(*ExactSum(dtype, 4), Shape{5, width}, "x");
    const std::vector<int64_t> index = {3, 0, 0, 4, 2, 1, 3};
    const V scale = {1, 0.5, 2, -1, 0.25, 4, -2};
    const Tensor scales = Of(lane, scale);
    const V x = Doubles(source);
    for (const bool scaled : {false, true}) {
      Tensor out(dtype, {7, width});
      ASSERT_TRUE(GatherRows(Stream::Inline(), dtype,
                             {.rows = 7,
                              .width = width,
                              .source = source.raw(),
                              .index = index.data(),
                              .scale = scaled ? scales.raw() : nullptr,
                              .out = out.raw()})
                      .ok());
      const V got = Doubles(out);
      for (int64_t i = 0; i < 7 * width; ++i) {
        const int64_t r = i / width;
        ASSERT_EQ(got[i],
                  x[index[r] * width + i % width] * (scaled ? scale[r] : 1))
            << i;
      }
    }
  });
}

TEST_P(MoeKernelTest, RowsAreCombinedAndDotted) {
  ForAllRows([](DType dtype, int64_t width) {
    const DType lane = Accumulator(dtype);
    constexpr int64_t kTokens = 4, kK = 3;
    // In narrow rows sums of six stay exact.
    const Tensor source = Filled(*ExactSum(dtype, 16), Shape{9, width}, "x");
    Tensor narrow = Filled(*ExactSum(dtype, 16), Shape{kTokens, width}, "n");
    const V wide_values = [&] {
      V v;
      for (int64_t i = 0; i < kTokens * width; ++i) v.push_back(i % 5 - 2.0);
      return v;
    }();
    const Tensor wide = Of(lane, wide_values);
    const std::vector<int64_t> place = {0,  5,  8,  -1, 2, -1,
                                        -1, -1, -1, 4,  4, 1};
    const V weight = {1, 2, -1, 1, -2, 1, 1, 1, 1, 1, -1, 2};
    const Tensor weights = Of(lane, weight);
    const V x = Doubles(source), n = Doubles(narrow);
    for (const bool weighted : {false, true}) {
      for (const bool added : {false, true}) {
        Tensor out(dtype, {kTokens, width});
        ASSERT_TRUE(CombineRows(Stream::Inline(), dtype,
                                {.tokens = kTokens,
                                 .k = kK,
                                 .width = width,
                                 .source = source.raw(),
                                 .place = place.data(),
                                 .weights = weighted ? weights.raw() : nullptr,
                                 .wide = added ? wide.raw() : nullptr,
                                 .narrow = added ? narrow.raw() : nullptr,
                                 .out = out.raw()})
                        .ok());
        const V got = Doubles(out);
        for (int64_t i = 0; i < kTokens * width; ++i) {
          double want = added ? wide_values[i] + n[i] : 0;
          for (int64_t s = i / width * kK; s < (i / width + 1) * kK; ++s) {
            if (place[s] < 0) continue;
            want +=
                (weighted ? weight[s] : 1) * x[place[s] * width + i % width];
          }
          ASSERT_EQ(got[i], want) << i;
        }
      }
    }
    // Few enough small integers for exact sums.
    const Tensor y =
        Filled(*ExactSum(DType::kE4M3, 4), Shape{kTokens * width}, "y");
    Tensor yn(dtype, {kTokens, width});
    const V yv = Doubles(y);
    FromDouble(dtype, yv.data(), yn.num_elements(), yn.raw());
    Tensor dots(lane, {kTokens, kK});
    ASSERT_TRUE(RowDots(Stream::Inline(), dtype,
                        {.tokens = kTokens,
                         .k = kK,
                         .width = width,
                         .y = yn.raw(),
                         .source = source.raw(),
                         .place = place.data(),
                         .dots = dots.raw()})
                    .ok());
    const V got = Doubles(dots);
    for (int64_t s = 0; s < kTokens * kK; ++s) {
      double want = 0, size = 0;
      for (int64_t j = 0; place[s] >= 0 && j < width; ++j) {
        const double term = yv[s / kK * width + j] * x[place[s] * width + j];
        want += term;
        size += std::abs(term);
      }
      ASSERT_LE(std::abs(got[s] - want),
                static_cast<double>(width) * UnitRoundoff(lane) * size)
          << s;
    }
  });
}

TEST(MoeKernels, RefuseTypesAndTooManyChoices) {
  EXPECT_EQ(TopKSoftmax(Stream::Inline(), DType::kBF16, {}).code(),
            StatusCode::kUnsupported);
  EXPECT_EQ(GatherRows(Stream::Inline(), DType::kI32, {}).code(),
            StatusCode::kUnsupported);
  EXPECT_EQ(
      TopKSoftmax(Stream::Inline(), DType::kF32, {.experts = 2, .k = 3}).code(),
      StatusCode::kInvalidArgument);
}

INSTANTIATE_TEST_SUITE_P(Targets, MoeKernelTest,
                         testing::ValuesIn(UsableTargets()),
                         [](const auto& info) {
                           return std::string(hwy::TargetName(info.param));
                         });

}  // namespace
}  // namespace shardproof
