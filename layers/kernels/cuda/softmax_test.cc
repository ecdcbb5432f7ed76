// Softmax in fibers against the bounded reference, as that of the host is.
#include "layers/kernels/cuda/softmax.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "layers/kernels/cuda/testing/fiber_launch.h"
#include "reference/attention_core.h"

namespace shardproof::cuda {
namespace {

using testing::Launcher;
using testing::LaunchShape;
using testing::Operand;
using testing::VisitStored;

constexpr double kUlps = 4;

// How many columns a row sees, as ../softmax.h says.
int64_t Seen(const SoftmaxShape& shape, int64_t row) {
  if (!shape.causal) return shape.columns;
  return std::clamp<int64_t>(row + shape.diagonal + 1, 0, shape.columns);
}

// 0 beyond what a row sees, within bounds before.
void ExpectRow(const SoftmaxShape& shape, int64_t row,
               const std::vector<double>& got,
               const std::vector<Bounded>& want) {
  const auto n = static_cast<int64_t>(want.size());
  for (int64_t j = 0; j < shape.columns; ++j) {
    const double x = got[row * shape.columns + j];
    if (j >= n) {
      ASSERT_EQ(x, 0) << "row " << row << ", column " << j;
      continue;
    }
    ASSERT_LE(std::abs(x - want[j].value), want[j].worst)
        << "row " << row << ", column " << j << ": " << x << ", not "
        << want[j].value;
  }
}

std::vector<Bounded> RowOf(const std::vector<double>& all, int64_t columns,
                           int64_t row, int64_t n) {
  std::vector<Bounded> out;
  for (int64_t j = 0; j < n; ++j) {
    out.push_back({.value = all[row * columns + j]});
  }
  return out;
}

class SoftmaxTest : public ::testing::TestWithParam<int64_t> {
 protected:
  void Check(const SoftmaxShape& shape, int64_t offset,
             const LaunchShape& launch_shape, uint64_t seed) {
    const double u = UnitRoundoff(DType::kF32);
    const int64_t n = shape.rows * shape.columns;
    Operand s = Operand::Random(DType::kF32, n, "s", 30, offset);
    Operand p(shape.dtype, n, offset);
    Operand dp = Operand::Random(DType::kF32, n, "dp", 2, offset);
    const std::vector<double> scores = s.Doubles(), dps = dp.Doubles();
    VisitStored(shape.dtype, [&]<class T>(TypeTag<T> /*type*/) {
      launch_(launch_shape, seed, [&](auto& context) {
        Team team(context);
        Softmax<T>(team, shape, s.raw(), p.raw());
      });
      // In place.
      launch_(launch_shape, seed, [&](auto& context) {
        Team team(context);
        SoftmaxBackward<T>(team, shape, p.raw(), dp.raw(), dp.raw());
      });
    });
    ASSERT_TRUE(p.GuardsAreIntact() && dp.GuardsAreIntact());
    const std::vector<double> got = p.Doubles(), ds = dp.Doubles();
    for (int64_t i = 0; i < shape.rows; ++i) {
      const int64_t seen = Seen(shape, i);
      std::vector<Bounded> x = RowOf(scores, shape.columns, i, seen);
      for (Bounded& v : x) v = Rounded(shape.scale * v, u);
      std::vector<Bounded> want = SoftmaxRow(x, u, kUlps);
      for (Bounded& v : want) v = Rounded(v, shape.dtype);
      ExpectRow(shape, i, got, want);
      ExpectRow(shape, i, ds,
                SoftmaxRowGrad(RowOf(got, shape.columns, i, seen),
                               RowOf(dps, shape.columns, i, seen), shape.scale,
                               u + kSlack));
    }
  }

  Launcher launch_;
};

TEST_P(SoftmaxTest, ForwardAndBackward) {
  uint64_t seed = 0;
  for (const DType dtype : testing::kTypes) {
    for (const int64_t offset : {0, 1}) {
      SoftmaxShape shape = {
          .dtype = dtype, .rows = 3, .columns = GetParam(), .scale = 0.3};
      for (const LaunchShape& launch_shape :
           {LaunchShape{2, 32}, LaunchShape{2, 96}}) {
        SCOPED_TRACE(fmt::format("{}, offset {}, {} threads", Name(dtype),
                                 offset, launch_shape.threads));
        Check(shape, offset, launch_shape, ++seed);
        if (HasFatalFailure()) return;
      }
      shape.causal = true;
      shape.rows = 19;
      if (GetParam() > 1000) continue;
      for (const int64_t diagonal : {-2, 0, 7}) {
        SCOPED_TRACE(fmt::format("{}, offset {}, diagonal {}", Name(dtype),
                                 offset, diagonal));
        shape.diagonal = diagonal;
        Check(shape, offset, {4, 64}, ++seed);
        if (HasFatalFailure()) return;
      }
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Columns, SoftmaxTest,
                         ::testing::Values(1, 7, 31, 33, 64, 1000, 4097));

TEST(SoftmaxFarTest, ScoresAndNumbersThatAreNone) {
  constexpr float kInf = std::numeric_limits<float>::infinity();
  Launcher launch;
  const auto softmax = [&](std::vector<float> s) {
    const SoftmaxShape shape = {.rows = 1,
                                .columns = static_cast<int64_t>(s.size())};
    launch({1, 64}, 1, [&](auto& context) {
      Team team(context);
      Softmax<float>(team, shape, s.data(), s.data());
    });
    return s;
  };
  EXPECT_EQ(softmax({-3e38F, 3e38F, 0}), (std::vector<float>{0, 1, 0}));
  EXPECT_EQ(softmax({1000, 1000}), (std::vector<float>{0.5F, 0.5F}));
  EXPECT_EQ(softmax({-kInf, 5}), (std::vector<float>{0, 1}));
  for (const float bad : {kInf, NAN}) {
    std::vector<float> s(300, 1.F);
    s[35] = bad;
    for (const float p : softmax(s)) EXPECT_TRUE(std::isnan(p));
  }
}

}  // namespace
}  // namespace shardproof::cuda
