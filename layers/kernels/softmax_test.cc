// Softmax and its derivative against the bounded reference, on every
// instruction set that this machine has.
#include "layers/kernels/softmax.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "collectives/kernels/targets.h"
#include "layers/kernels/kernel_testing.h"
#include "reference/attention_core.h"

namespace shardproof {
namespace {

constexpr double kUlps = 4;
constexpr DType kTypes[] = {DType::kF32, DType::kF64, DType::kBF16,
                            DType::kF16};

class SoftmaxTest : public testing::TestWithParam<int64_t> {};

int64_t Seen(const SoftmaxShape& shape, int64_t row) {
  if (!shape.causal) return shape.columns;
  return std::clamp<int64_t>(row + shape.diagonal + 1, 0, shape.columns);
}

std::vector<SoftmaxShape> Shapes(DType dtype) {
  std::vector<SoftmaxShape> shapes;
  // Beyond 4096, exponentials are kept elsewhere.
  for (const int64_t columns : {1, 3, 16, 33, 1003, 4099}) {
    shapes.push_back(
        {.dtype = dtype, .rows = 3, .columns = columns, .scale = 0.3});
    if (columns > 4096) continue;
    for (const int64_t diagonal : {-2, 0, 7}) {
      shapes.push_back({.dtype = dtype,
                        .rows = 19,
                        .columns = columns,
                        .scale = 0.3,
                        .causal = true,
                        .diagonal = diagonal});
    }
  }
  return shapes;
}

// Of a row: what is seen is inside the bounds, the rest is 0.
void ExpectRow(const SoftmaxShape& shape, int64_t row, const double* got,
               const std::vector<Bounded>& want) {
  const int64_t n = Seen(shape, row);
  ASSERT_EQ(n, static_cast<int64_t>(want.size()));
  for (int64_t j = 0; j < shape.columns; ++j) {
    const double x = got[row * shape.columns + j];
    if (j >= n) {
      ASSERT_EQ(x, 0) << "row " << row << ", column " << j;
      continue;
    }
    const Bounded& w = want[static_cast<size_t>(j)];
    ASSERT_LE(std::abs(x - w.value), w.worst)
        << "row " << row << ", column " << j << ": " << x << ", not "
        << w.value;
  }
}

std::vector<Bounded> Row(const std::vector<double>& all, int64_t columns,
                         int64_t row, int64_t n) {
  std::vector<Bounded> out;
  for (int64_t j = 0; j < n; ++j) {
    out.push_back({.value = all[static_cast<size_t>(row * columns + j)]});
  }
  return out;
}

TEST_P(SoftmaxTest, ForwardAndBackward) {
  const OnlyTarget only(GetParam());
  for (const DType dtype : kTypes) {
    const DType wide = Accumulator(dtype);
    const double u = UnitRoundoff(wide);
    for (const SoftmaxShape& shape : Shapes(dtype)) {
      SCOPED_TRACE(fmt::format("[{}, {}] of {}, causal {} {}", shape.rows,
                               shape.columns, Name(dtype), shape.causal,
                               shape.diagonal));
      const Shape size = {shape.rows, shape.columns};
      Tensor s = Filled(Uniform(wide, 30), size, "s");
      const std::vector<double> scores = Doubles(s);
      Tensor p(dtype, size);
      ASSERT_TRUE(Softmax(Stream::Inline(), shape, s.raw(), p.raw()).ok());
      const std::vector<double> got = Doubles(p);
      Tensor dp = Filled(Uniform(wide, 2), size, "dp");
      const std::vector<double> dps = Doubles(dp);
      ASSERT_TRUE(
          SoftmaxBackward(Stream::Inline(), shape, p.raw(), dp.raw(), dp.raw())
              .ok());
      const std::vector<double> ds = Doubles(dp);
      for (int64_t i = 0; i < shape.rows; ++i) {
        const int64_t n = Seen(shape, i);
        std::vector<Bounded> x = Row(scores, shape.columns, i, n);
        for (Bounded& v : x) v = Rounded(shape.scale * v, u);
        std::vector<Bounded> want = SoftmaxRow(x, u, kUlps);
        for (Bounded& v : want) v = Rounded(v, dtype);
        ExpectRow(shape, i, got.data(), want);
        ExpectRow(shape, i, ds.data(),
                  SoftmaxRowGrad(Row(got, shape.columns, i, n),
                                 Row(dps, shape.columns, i, n), shape.scale,
                                 u + kSlack));
      }
    }
  }
}

// Of one type with the scores, probabilities may take their place.
TEST_P(SoftmaxTest, InPlaceIsTheSame) {
  const OnlyTarget only(GetParam());
  const SoftmaxShape shape = {
      .rows = 5, .columns = 37, .causal = true, .diagonal = 20};
  Tensor s = Filled(Uniform(DType::kF32, 30), {5, 37}, "s");
  Tensor t = Filled(Uniform(DType::kF32, 30), {5, 37}, "s");
  Tensor p(DType::kF32, {5, 37});
  ASSERT_TRUE(Softmax(Stream::Inline(), shape, s.raw(), p.raw()).ok());
  ASSERT_TRUE(Softmax(Stream::Inline(), shape, t.raw(), t.raw()).ok());
  EXPECT_EQ(Doubles(t), Doubles(p));
}

TEST_P(SoftmaxTest, FarScoresAndNumbersThatAreNone) {
  const OnlyTarget only(GetParam());
  constexpr float kInf = std::numeric_limits<float>::infinity();
  constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
  const auto softmax = [](std::vector<float> s) {
    const SoftmaxShape shape = {.rows = 1,
                                .columns = static_cast<int64_t>(s.size())};
    EXPECT_TRUE(Softmax(Stream::Inline(), shape, s.data(), s.data()).ok());
    return s;
  };
  EXPECT_EQ(softmax({-3e38F, 3e38F, 0}), (std::vector<float>{0, 1, 0}));
  EXPECT_EQ(softmax({1000, 1000}), (std::vector<float>{0.5F, 0.5F}));
  EXPECT_EQ(softmax({-kInf, 5}), (std::vector<float>{0, 1}));
  for (const float bad : {kInf, kNan}) {
    std::vector<float> s(37, 1.F);
    s[35] = bad;
    for (const float p : softmax(s)) EXPECT_TRUE(std::isnan(p));
  }
}

INSTANTIATE_TEST_SUITE_P(All, SoftmaxTest, testing::ValuesIn(UsableTargets()),
                         [](const auto& info) {
                           return std::string(hwy::TargetName(info.param));
                         });

TEST(SoftmaxArgsTest, RefusesIntegers) {
  int32_t x = 1;
  EXPECT_EQ(Softmax(Stream::Inline(), {.dtype = DType::kI32}, &x, &x).code(),
            StatusCode::kUnsupported);
}

}  // namespace
}  // namespace shardproof
