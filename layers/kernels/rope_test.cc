// Rotations against the bounded reference, on every instruction set that this
// machine has.
#include "layers/kernels/rope.h"

#include <gtest/gtest.h>

#include <cmath>
#include <vector>

#include "collectives/kernels/targets.h"
#include "layers/kernels/kernel_testing.h"
#include "reference/attention_core.h"

namespace shardproof {
namespace {

constexpr DType kTypes[] = {DType::kF32, DType::kF64, DType::kBF16,
                            DType::kF16};

class RopeTest : public testing::TestWithParam<int64_t> {};

// Two sequences of five tokens, somewhere in a long text, in rows that hold
// more than the heads that are turned.
TEST_P(RopeTest, TurnsAndTurnsBack) {
  const OnlyTarget only(GetParam());
  const std::vector<int64_t> positions = {0, 1, 2, 777, 131071};
  constexpr int64_t kTokens = 10, kHeads = 3, kMore = 5;
  for (const DType dtype : kTypes) {
    for (const int64_t d : {2, 6, 34, 64}) {
      for (const double theta : {10000.0, 500000.0}) {
        SCOPED_TRACE(fmt::format("{} of {}, theta {}", d, Name(dtype), theta));
        const auto table = RopeTable::Create(
            {.dtype = dtype, .head_dim = d, .theta = theta}, positions);
        ASSERT_TRUE(table.ok());
        Tensor x =
            Filled(Uniform(dtype, 3), {kTokens, kHeads * d + kMore}, "x");
        const std::vector<double> before = Doubles(x);
        for (const bool back : {false, true}) {
          const Matrix all = ExactMatrix(x.view());
          const Matrix want =
              RopeReference(ColumnsOf(all, 0, kHeads * d), d, theta, positions,
                            back, Arithmetic::For(dtype));
          ASSERT_TRUE(
              Rope(Stream::Inline(), *table,
                   back ? RopeDirection::kBackward : RopeDirection::kForward,
                   {.tokens = kTokens,
                    .heads = kHeads,
                    .stride = kHeads * d + kMore,
                    .x = x.raw()})
                  .ok());
          const Matrix got = ExactMatrix(x.view());
          for (int64_t t = 0; t < kTokens; ++t) {
            for (int64_t j = 0; j < kHeads * d; ++j) {
              const Bounded& w = want.at(t, j);
              ASSERT_LE(std::abs(got.at(t, j).value - w.value), w.worst)
                  << "token " << t << ", element " << j;
            }
            for (int64_t j = kHeads * d; j < all.cols; ++j) {
              ASSERT_EQ(got.at(t, j).value, all.at(t, j).value);
            }
          }
        }
        // Back where it was, but for two roundings of each of two numbers.
        const std::vector<double> after = Doubles(x);
        for (size_t i = 0; i < after.size(); ++i) {
          ASSERT_NEAR(after[i], before[i], 3 * 8 * UnitRoundoff(dtype));
        }
      }
    }
  }
}

INSTANTIATE_TEST_SUITE_P(All, RopeTest, testing::ValuesIn(UsableTargets()),
                         [](const auto& info) {
                           return std::string(hwy::TargetName(info.param));
                         });

TEST(RopeArgsTest, RefusesWhatHasNoPairs) {
  const std::vector<int64_t> positions = {0, 1, 2};
  const auto code = [&](const RopeConfig& config) {
    return RopeTable::Create(config, positions).status().code();
  };
  EXPECT_EQ(code({.head_dim = 3}), StatusCode::kInvalidArgument);
  EXPECT_EQ(code({.head_dim = -2}), StatusCode::kInvalidArgument);
  EXPECT_EQ(code({.head_dim = 4, .theta = 0}), StatusCode::kInvalidArgument);
  EXPECT_EQ(code({.dtype = DType::kI32, .head_dim = 4}),
            StatusCode::kUnsupported);
  const auto table = RopeTable::Create({.head_dim = 4}, positions);
  ASSERT_TRUE(table.ok());
  std::vector<float> x(4 * 4);
  EXPECT_EQ(Rope(Stream::Inline(), *table, RopeDirection::kForward,
                 {.tokens = 4, .heads = 1, .stride = 4, .x = x.data()})
                .code(),
            StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace shardproof
