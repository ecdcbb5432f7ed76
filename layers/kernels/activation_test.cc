// Activations and their derivatives against the bounded references, on every
// instruction set that this machine has.
#include "layers/kernels/activation.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <vector>

#include "collectives/kernels/targets.h"
#include "layers/kernels/kernel_testing.h"
#include "reference/bounded.h"

namespace shardproof {
namespace {

constexpr double kUlps = 4;
constexpr DType kTypes[] = {DType::kF32, DType::kF64, DType::kBF16,
                            DType::kF16};
constexpr int64_t kLengths[] = {0, 1, 7, 16, 31, 1003};

Bounded Exactly(double value) { return {.value = value}; }

class ActivationTest : public testing::TestWithParam<int64_t> {
 protected:
  // Calls body(dtype, n) for all types and lengths.
  template <class Body>
  void ForAll(Body body) {
    const OnlyTarget only(GetParam());
    for (const DType dtype : kTypes) {
      for (const int64_t n : kLengths) {
        SCOPED_TRACE(fmt::format("{} elements of {}", n, Name(dtype)));
        body(dtype, n);
      }
    }
  }
  static Tensor Random(DType dtype, int64_t n, std::string_view name) {
    return Filled(Uniform(dtype, 6.0), Shape{n}, name);
  }
  // `want` before the last rounding. The bound has room for the roundings
  // inside a fused form that the reference orders otherwise.
  static void ExpectClose(const Tensor& got, const std::vector<Bounded>& want) {
    const std::vector<double> values = Doubles(got);
    ASSERT_EQ(values.size(), want.size());
    for (size_t i = 0; i < values.size(); ++i) {
      const Bounded w = Rounded(want[i], got.dtype());
      ASSERT_LE(std::abs(values[i] - w.value), w.worst)
          << "element " << i << " is " << values[i] << ", not " << w.value;
    }
  }
};

double UnitOf(DType dtype) { return UnitRoundoff(Accumulator(dtype)); }

TEST_P(ActivationTest, GeluAndItsDerivative) {
  ForAll([](DType dtype, int64_t n) {
    const Tensor z = Random(dtype, n, "z"), da = Random(dtype, n, "da");
    Tensor a(dtype, {n}), dz(dtype, {n});
    ASSERT_TRUE(Gelu(Stream::Inline(), dtype, n, z.raw(), a.raw()).ok());
    ASSERT_TRUE(
        GeluBackward(Stream::Inline(), dtype, n, z.raw(), da.raw(), dz.raw())
            .ok());
    const double u = UnitOf(dtype);
    std::vector<Bounded> want_a, want_dz;
    const std::vector<double> v = Doubles(z), d = Doubles(da);
    for (size_t i = 0; i < v.size(); ++i) {
      want_a.push_back(GeluTanh(Exactly(v[i]), u, kUlps));
      want_dz.push_back(
          Rounded(Exactly(d[i]) * GeluTanhGrad(Exactly(v[i]), u, kUlps), u));
    }
    ExpectClose(a, want_a);
    ExpectClose(dz, want_dz);
  });
}

TEST_P(ActivationTest, SwiGluAndItsDerivatives) {
  ForAll([](DType dtype, int64_t n) {
    Tensor gate = Random(dtype, n, "gate"), up = Random(dtype, n, "up");
    const Tensor da = Random(dtype, n, "da");
    Tensor a(dtype, {n});
    ASSERT_TRUE(
        SwiGlu(Stream::Inline(), dtype, n, gate.raw(), up.raw(), a.raw()).ok());
    const double u = UnitOf(dtype);
    std::vector<Bounded> want_a, want_dgate, want_dup;
    const std::vector<double> g = Doubles(gate), v = Doubles(up);
    const std::vector<double> d = Doubles(da);
    for (size_t i = 0; i < g.size(); ++i) {
      const Bounded silu = Silu(Exactly(g[i]), u, kUlps);
      want_a.push_back(Rounded(silu * Exactly(v[i]), u));
      want_dup.push_back(Rounded(Exactly(d[i]) * silu, u));
      const Bounded dsilu = Rounded(Exactly(d[i]) * Exactly(v[i]), u);
      want_dgate.push_back(
          Rounded(dsilu * SiluGrad(Exactly(g[i]), u, kUlps), u));
    }
    ExpectClose(a, want_a);
    // In place, as the layer does it.
    ASSERT_TRUE(SwiGluBackward(Stream::Inline(), dtype, n, gate.raw(), up.raw(),
                               da.raw(), gate.raw(), up.raw())
                    .ok());
    ExpectClose(gate, want_dgate);
    ExpectClose(up, want_dup);
  });
}

TEST_P(ActivationTest, FarArgumentsSaturate) {
  const OnlyTarget only(GetParam());
  const std::vector<float> z = {1e38F, -1e38F, 200.F, -200.F, 0.F};
  const std::vector<float> one(z.size(), 1.F);
  std::vector<float> gelu(z.size()), silu(z.size());
  const auto n = static_cast<int64_t>(z.size());
  ASSERT_TRUE(
      Gelu(Stream::Inline(), DType::kF32, n, z.data(), gelu.data()).ok());
  ASSERT_TRUE(SwiGlu(Stream::Inline(), DType::kF32, n, z.data(), one.data(),
                     silu.data())
                  .ok());
  for (size_t i = 0; i < z.size(); ++i) {
    // 200 exp(-200) is below the smallest number.
    EXPECT_EQ(silu[i], std::max(z[i], 0.F));
    // The cube of 1e38 is infinite, and so is its sigmoid's argument.
    EXPECT_EQ(gelu[i], std::max(z[i], 0.F));
  }
  const float nan = std::numeric_limits<float>::quiet_NaN();
  float out = 0;
  ASSERT_TRUE(Gelu(Stream::Inline(), DType::kF32, 1, &nan, &out).ok());
  EXPECT_TRUE(std::isnan(out));
}

// Integers, so that sums are exact; columns beyond one block of the kernel.
TEST_P(ActivationTest, ColumnSumAndBias) {
  const OnlyTarget only(GetParam());
  for (const DType dtype : kTypes) {
    for (const int64_t columns : {1, 17, 512, 1030}) {
      for (const int64_t rows : {0, 1, 5}) {
        SCOPED_TRACE(fmt::format("[{}, {}] of {}", rows, columns, Name(dtype)));
        const auto exact = ExactSum(dtype, 8);
        ASSERT_TRUE(exact.ok());
        Tensor x = Filled(*exact, Shape{rows, columns}, "x");
        const Tensor b = Filled(*exact, Shape{columns}, "b");
        Tensor sum(dtype, {columns});
        ASSERT_TRUE(ColumnSum(Stream::Inline(), dtype, rows, columns, x.raw(),
                              sum.raw())
                        .ok());
        const std::vector<double> before = Doubles(x), bias = Doubles(b);
        ASSERT_TRUE(
            AddBias(Stream::Inline(), dtype, rows, columns, b.raw(), x.raw())
                .ok());
        const std::vector<double> after = Doubles(x), sums = Doubles(sum);
        for (int64_t j = 0; j < columns; ++j) {
          double want = 0;
          for (int64_t i = 0; i < rows; ++i) {
            want += before[i * columns + j];
            ASSERT_EQ(after[i * columns + j], before[i * columns + j] + bias[j])
                << "row " << i << ", column " << j;
          }
          ASSERT_EQ(sums[j], want) << "column " << j;
        }
      }
    }
  }
}

INSTANTIATE_TEST_SUITE_P(All, ActivationTest,
                         testing::ValuesIn(UsableTargets()),
                         [](const auto& info) {
                           return std::string(hwy::TargetName(info.param));
                         });

TEST(ActivationArgsTest, RefusesIntegers) {
  int32_t x = 1;
  EXPECT_EQ(Gelu(Stream::Inline(), DType::kI32, 1, &x, &x).code(),
            StatusCode::kUnsupported);
}

}  // namespace
}  // namespace shardproof
