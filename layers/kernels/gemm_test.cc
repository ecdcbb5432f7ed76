// Gemm against the serial reference of the linear layer: each of its three
// products is one of Gemm's orientations.
#include "layers/kernels/gemm.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <cmath>
#include <string>
#include <thread>
#include <tuple>
#include <utility>
#include <vector>

#include "collectives/kernels/targets.h"
#include "layers/kernels/kernel_testing.h"
#include "reference/linear.h"

namespace shardproof {
namespace {

struct Sizes {
  int64_t tokens, in, out;
};

void ExpectWithin(const Tensor& got, const Matrix& want) {
  const std::vector<double> values = Doubles(got);
  ASSERT_EQ(values.size(), want.values.size());
  for (size_t i = 0; i < values.size(); ++i) {
    ASSERT_LE(std::abs(values[i] - want.values[i].value), want.values[i].worst)
        << "element " << i << " is " << values[i] << ", not "
        << want.values[i].value;
  }
}

class GemmTest : public testing::TestWithParam<std::tuple<DType, Sizes>> {
 protected:
  DType dtype() const { return std::get<0>(GetParam()); }
  Sizes sizes() const { return std::get<1>(GetParam()); }
  Tensor Random(const Shape& shape, std::string_view name) const {
    return Filled(Uniform(dtype()), shape, name);
  }
  Arithmetic arithmetic() const { return Arithmetic::For(dtype()); }
};

TEST_P(GemmTest, TransposedBWithBiasIsTheForwardPass) {
  const auto [tokens, in, out] = sizes();
  const Tensor x = Random({tokens, in}, "x"), w = Random({out, in}, "w");
  const Tensor b = Random({out}, "b");
  Tensor y(dtype(), {tokens, out});
  ASSERT_TRUE(Gemm(Stream::Inline(), {.a = x.view(),
                                      .b = w.view(),
                                      .transpose_b = true,
                                      .c = y.view(),
                                      .bias = b.raw()})
                  .ok());
  ExpectWithin(y, LinearForward({x.view(), w.view(), b.view()}, arithmetic()));
}

TEST_P(GemmTest, PlainIsTheInputGradient) {
  const auto [tokens, in, out] = sizes();
  const Tensor dy = Random({tokens, out}, "dy"), w = Random({out, in}, "w");
  Tensor dx(dtype(), {tokens, in});
  ASSERT_TRUE(
      Gemm(Stream::Inline(), {.a = dy.view(), .b = w.view(), .c = dx.view()})
          .ok());
  ExpectWithin(dx, LinearInputGrad(dy.view(), w.view(), arithmetic()));
}

TEST_P(GemmTest, TransposedAIsTheWeightGradient) {
  const auto [tokens, in, out] = sizes();
  const Tensor dy = Random({tokens, out}, "dy"), x = Random({tokens, in}, "x");
  Tensor dw(dtype(), {out, in});
  ASSERT_TRUE(
      Gemm(Stream::Inline(),
           {.a = dy.view(), .transpose_a = true, .b = x.view(), .c = dw.view()})
          .ok());
  ExpectWithin(dw, LinearWeightGrad(dy.view(), x.view(), arithmetic()));
}

// Ranks are threads, and each multiplies for itself.
TEST_P(GemmTest, ManyThreadsAtOnce) {
  const auto [tokens, in, out] = sizes();
  const Tensor x = Random({tokens, in}, "x"), w = Random({out, in}, "w");
  const auto multiply = [&](Tensor& y) {
    return Gemm(
        Stream::Inline(),
        {.a = x.view(), .b = w.view(), .transpose_b = true, .c = y.view()});
  };
  Tensor alone(dtype(), {tokens, out});
  ASSERT_TRUE(multiply(alone).ok());
  constexpr int kThreads = 4, kProducts = 500;
  std::atomic<int> wrong{0};
  std::vector<std::thread> threads;
  for (int t = 0; t < kThreads; ++t) {
    threads.emplace_back([&] {
      Tensor y(dtype(), {alone.shape()[0], alone.shape()[1]});
      for (int i = 0; i < kProducts; ++i) {
        const bool same =
            multiply(y).ok() && std::equal(y.bytes().begin(), y.bytes().end(),
                                           alone.bytes().begin());
        wrong += same ? 0 : 1;
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(wrong, 0) << "of " << kThreads * kProducts;
}

// With integers below 2^significand every order gives the same bits, so what
// is accumulated is exact.
TEST_P(GemmTest, AccumulatesOntoWhatIsThere) {
  const auto [tokens, in, out] = sizes();
  // As if there were twice the terms, so that the sum of both is exact too.
  const auto exact =
      ExactLinear(dtype(), dtype(), tokens, 2 * in + 1, 2 * out + 1);
  ASSERT_TRUE(exact.ok()) << exact.status().ToString();
  Distribution plain = exact->dy;
  const Tensor dy = Filled(plain, {tokens, out}, "dy");
  const Tensor w = Filled(exact->w, {out, in}, "w");
  Tensor once(dtype(), {tokens, in}), twice(dtype(), {tokens, in});
  const GemmArgs args{.a = dy.view(), .b = w.view(), .c = once.view()};
  ASSERT_TRUE(Gemm(Stream::Inline(), args).ok());
  GemmArgs again = args;
  again.c = twice.view();
  ASSERT_TRUE(Gemm(Stream::Inline(), again).ok());
  again.accumulate = true;
  ASSERT_TRUE(Gemm(Stream::Inline(), again).ok());
  const std::vector<double> single = Doubles(once), both = Doubles(twice);
  for (size_t i = 0; i < single.size(); ++i) {
    ASSERT_EQ(both[i], Round(dtype(), 2 * single[i])) << "element " << i;
  }
}

// Beyond one panel of columns, at one row, at single columns, and without terms
// or rows.
INSTANTIATE_TEST_SUITE_P(
    All, GemmTest,
    testing::Combine(
        testing::Values(DType::kF32, DType::kF64, DType::kBF16, DType::kF16),
        testing::Values(Sizes{17, 33, 29}, Sizes{1, 65, 1}, Sizes{3, 1, 1030},
                        Sizes{5, 700, 3}, Sizes{4, 0, 6}, Sizes{0, 4, 6},
                        Sizes{4, 6, 0})),
    [](const auto& info) {
      const Sizes s = std::get<1>(info.param);
      return fmt::format("{}_{}x{}x{}", Name(std::get<0>(info.param)), s.tokens,
                         s.in, s.out);
    });

TEST(GemmArgsTest, RefusesWhatDoesNotFit) {
  Tensor a(DType::kF32, {2, 3}), b(DType::kF32, {4, 5}), c(DType::kF32, {2, 5});
  const Status shapes =
      Gemm(Stream::Inline(), {.a = a.view(), .b = b.view(), .c = c.view()});
  EXPECT_EQ(shapes.code(), StatusCode::kInvalidArgument);
  EXPECT_NE(shapes.message().find("[4, 5]"), std::string_view::npos);
  Tensor mixed(DType::kBF16, {3, 5});
  EXPECT_EQ(
      Gemm(Stream::Inline(), {.a = a.view(), .b = mixed.view(), .c = c.view()})
          .code(),
      StatusCode::kInvalidArgument);
  Tensor fits(DType::kF32, {3, 5});
  EXPECT_EQ(Gemm(Stream::Inline(), {.a = a.view(),
                                    .b = fits.view(),
                                    .c = c.view(),
                                    .accumulate = true,
                                    .bias = c.raw()})
                .code(),
            StatusCode::kInvalidArgument);
}

TEST(GemmArgsTest, RefusesIntegers) {
  Tensor a(DType::kI32, {2, 2}), c(DType::kI32, {2, 2});
  EXPECT_EQ(
      Gemm(Stream::Inline(), {.a = a.view(), .b = a.view(), .c = c.view()})
          .code(),
      StatusCode::kUnsupported);
}

}  // namespace
}  // namespace shardproof
