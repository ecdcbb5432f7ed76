// The products with GELU in their epilogue against the bounded references. What multiplies is the library for tests.
#include <gtest/gtest.h>

#include <cmath>
#include <optional>
#include <string>
#include <tuple>
#include <vector>

#include "layers/kernels/cuda/blas/gemm_cublaslt.h"
#include "layers/kernels/cuda/blas/testing/gemm_fixture.h"
#include "layers/kernels/kernel_testing.h"
#include "reference/bounded.h"
#include "reference/linear.h"

namespace shardproof {
namespace {

using testing::BlasGpu;

constexpr double kUlps = 4;

struct Sizes {
  int64_t tokens, in, out;
};

void ExpectWithin(const Tensor& got, const std::vector<Bounded>& want) {
  const std::vector<double> values = Doubles(got);
  ASSERT_EQ(values.size(), want.size());
  for (size_t i = 0; i < values.size(); ++i) {
    ASSERT_LE(std::abs(values[i] - want[i].value), want[i].worst)
        << "element " << i << " is " << values[i] << ", not " << want[i].value;
  }
}

class GemmGeluTest : public ::testing::TestWithParam<std::tuple<DType, Sizes>> {
 protected:
  DType dtype() const { return std::get<0>(GetParam()); }
  Sizes sizes() const { return std::get<1>(GetParam()); }
  Arithmetic arithmetic() const { return Arithmetic::For(dtype()); }
  double UnitOf() const { return UnitRoundoff(Accumulator(dtype())); }
  Tensor Random(const Shape& shape, std::string_view name) const {
    return Filled(Uniform(dtype()), shape, name);
  }
};

TEST_P(GemmGeluTest, ForwardKeepsWhatTheActivationIsOf) {
  const auto [tokens, in, out] = sizes();
  BlasGpu gpu;
  const Tensor x = Random({tokens, in}, "x"), w = Random({out, in}, "w");
  const Tensor b = Random({out}, "b");
  Tensor z(dtype(), {tokens, out}), a(dtype(), {tokens, out});
  const std::optional<Status> done =
      gpu.Finish(gpu.gemm().GemmGelu(gpu.stream(),
                                     {.a = x.view(),
                                      .b = w.view(),
                                      .transpose_b = true,
                                      .c = a.view(),
                                      .bias = b.raw()},
                                     z.raw()));
  ASSERT_TRUE(done.has_value());
  ASSERT_TRUE(done->ok()) << done->ToString();
  const Matrix want =
      LinearForward({x.view(), w.view(), b.view()}, arithmetic());
  ExpectWithin(z, want.values);
  std::vector<Bounded> activated;
  for (const Bounded& one : want.values) {
    activated.push_back(Rounded(GeluTanh(one, UnitOf(), kUlps), dtype()));
  }
  ExpectWithin(a, activated);
}

TEST_P(GemmGeluTest, BackwardGivesBothGradients) {
  const auto [tokens, in, out] = sizes();
  BlasGpu gpu;
  // dy [tokens, in] of y = gelu(z) w2^T, with w2 [in, out].
  const Tensor dy = Random({tokens, in}, "dy"), w = Random({in, out}, "w2");
  const Tensor z = Filled(Uniform(dtype(), 3.0), {tokens, out}, "z");
  Tensor dz(dtype(), {tokens, out}), db(dtype(), {out});
  const std::optional<Status> done = gpu.Finish(gpu.gemm().GemmGeluBackward(
      gpu.stream(), {.a = dy.view(), .b = w.view(), .c = dz.view()}, z.raw(),
      db.raw()));
  ASSERT_TRUE(done.has_value());
  ASSERT_TRUE(done->ok()) << done->ToString();
  Matrix want = LinearInputGrad(dy.view(), w.view(), arithmetic());
  const std::vector<double> at = Doubles(z);
  for (size_t i = 0; i < at.size(); ++i) {
    const Bounded slope = GeluTanhGrad({.value = at[i]}, UnitOf(), kUlps);
    want.values[i] = Rounded(want.values[i] * slope, dtype());
  }
  ExpectWithin(dz, want.values);
  ExpectWithin(db, LinearBiasGrad(want, arithmetic()).values);
}

INSTANTIATE_TEST_SUITE_P(
    All, GemmGeluTest,
    ::testing::Combine(
        ::testing::Values(DType::kF32, DType::kBF16, DType::kF16),
        ::testing::Values(Sizes{17, 33, 24}, Sizes{1, 5, 8}, Sizes{40, 1, 16})),
    [](const auto& info) {
      const Sizes s = std::get<1>(info.param);
      return fmt::format("{}_{}x{}x{}", Name(std::get<0>(info.param)), s.tokens,
                         s.in, s.out);
    });

class GemmGeluArgsTest : public ::testing::Test {
 protected:
  std::optional<Status> Forward(DType dtype, int64_t m, int64_t n, int64_t k,
                                bool bias = true) {
    const Tensor a = Tensor::Zeros(dtype, {m, k});
    const Tensor b = Tensor::Zeros(dtype, {k, n});
    Tensor c = Tensor::Zeros(dtype, {m, n}), z = Tensor::Zeros(dtype, {m, n});
    const Tensor row = Tensor::Zeros(dtype, {n});
    return gpu_.Finish(
        gpu_.gemm().GemmGelu(gpu_.stream(),
                             {.a = a.view(),
                              .b = b.view(),
                              .c = c.view(),
                              .bias = bias ? row.raw() : nullptr},
                             z.raw()));
  }
  BlasGpu gpu_;
};

TEST_F(GemmGeluArgsTest, LeavesToOthersWhatTheLibraryHasNot) {
  EXPECT_TRUE(Forward(DType::kBF16, 4, 16, 5).has_value());
  EXPECT_FALSE(Forward(DType::kBF16, 4, 17, 5).has_value());
  EXPECT_FALSE(Forward(DType::kBF16, 4, 16, 0).has_value());
  EXPECT_FALSE(Forward(DType::kF64, 4, 16, 5).has_value());
  EXPECT_FALSE(Forward(DType::kI32, 4, 16, 5).has_value());
  gpu_.behaviour().no_epilogues = true;
  EXPECT_FALSE(Forward(DType::kF16, 4, 16, 5).has_value());
}

TEST_F(GemmGeluArgsTest, RefusesWhatHasNoMeaning) {
  const auto no_bias = Forward(DType::kBF16, 4, 16, 5, /*bias=*/false);
  ASSERT_TRUE(no_bias.has_value());
  EXPECT_EQ(no_bias->code(), StatusCode::kInvalidArgument);
}

TEST_F(GemmGeluArgsTest, WithoutRowsTheGradientOfTheBiasIsZero) {
  const Tensor dy(DType::kBF16, {0, 3}), w(DType::kBF16, {3, 5});
  Tensor dz(DType::kBF16, {0, 5});
  Tensor db = Filled(Uniform(DType::kBF16), {5}, "db");
  const std::optional<Status> done = gpu_.Finish(gpu_.gemm().GemmGeluBackward(
      gpu_.stream(), {.a = dy.view(), .b = w.view(), .c = dz.view()}, nullptr,
      db.raw()));
  ASSERT_TRUE(done.has_value() && done->ok());
  EXPECT_EQ(Doubles(db), std::vector<double>(5, 0.0));
}

}  // namespace
}  // namespace shardproof
