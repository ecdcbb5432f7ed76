// Quotients are those of the type that computes, rounded once more when stored,
// on every instruction set that this machine has.
#include "layers/kernels/divide.h"

#include <gtest/gtest.h>

#include <cmath>
#include <vector>

#include "layers/kernels/kernel_testing.h"

namespace shardproof {
namespace {

class DivideTest : public testing::TestWithParam<int64_t> {};

TEST_P(DivideTest, RoundsTheQuotient) {
  const OnlyTarget only(GetParam());
  for (const DType dtype :
       {DType::kF64, DType::kF32, DType::kBF16, DType::kF16}) {
    for (const int64_t n : {0, 1, 7, 16, 31, 1003}) {
      for (const double divisor : {1.0, 3.0, 48.0}) {
        Tensor x = Filled(Uniform(dtype, 100.0), Shape{n}, "x");
        const std::vector<double> before = Doubles(x);
        ASSERT_TRUE(Divide(Stream::Inline(), dtype, n, x.raw(), divisor).ok());
        const std::vector<double> after = Doubles(x);
        for (size_t i = 0; i < before.size(); ++i) {
          const double computed =
              dtype == DType::kF64
                  ? before[i] / divisor
                  : static_cast<double>(static_cast<float>(before[i]) /
                                        static_cast<float>(divisor));
          ASSERT_EQ(after[i], Round(dtype, computed))
              << Name(dtype) << " element " << i << " of " << n << ", "
              << before[i] << " / " << divisor;
        }
      }
    }
  }
}

TEST_P(DivideTest, KeepsWhatIsBeyondTheEnd) {
  const OnlyTarget only(GetParam());
  Tensor x = Filled(Uniform(DType::kF32, 8.0), Shape{21}, "x");
  const std::vector<double> before = Doubles(x);
  ASSERT_TRUE(Divide(Stream::Inline(), DType::kF32, 13, x.raw(), 2).ok());
  const std::vector<double> after = Doubles(x);
  for (size_t i = 0; i < 13; ++i) EXPECT_EQ(after[i], before[i] / 2);
  for (size_t i = 13; i < 21; ++i) EXPECT_EQ(after[i], before[i]);
}

INSTANTIATE_TEST_SUITE_P(Targets, DivideTest,
                         testing::ValuesIn(UsableTargets()));

TEST(Divide, RefusesIntegers) {
  int32_t x = 6;
  EXPECT_EQ(Divide(Stream::Inline(), DType::kI32, 1, &x, 2).code(),
            StatusCode::kUnsupported);
  EXPECT_EQ(x, 6);
}

}  // namespace
}  // namespace shardproof
