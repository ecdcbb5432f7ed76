#include "tools/cli/roofline/operand_check.h"

#include <gtest/gtest.h>

#include <cmath>
#include <vector>

namespace shardproof {
namespace {

cuda::Operand Result(double relative, double absolute, double of_rms = 0) {
  return {.name = "y",
          .dtype = DType::kF32,
          .count = 4,
          .checked = true,
          .relative = relative,
          .absolute = absolute,
          .of_rms = of_rms};
}

bool Passes(const cuda::Operand& operand, const std::vector<float>& got,
            const std::vector<float>& want) {
  return CompareOperand(operand, got.data(), want.data()).passed;
}

TEST(OperandCheckTest, HoldsEveryElementToItsBound) {
  const std::vector<float> want = {0, 1, -8, 100};
  const cuda::Operand operand = Result(1e-2, 0.5);
  EXPECT_TRUE(Passes(operand, {0.5F, 1.5F, -7.5F, 101.4F}, want));
  EXPECT_FALSE(Passes(operand, {0.6F, 1, -8, 100}, want));
  EXPECT_FALSE(Passes(operand, {0, 1, -8, 101.6F}, want));
  EXPECT_FALSE(Passes(operand, {0, 1, NAN, 100}, want));
}

TEST(OperandCheckTest, WithoutABoundOnlyTheSameValuesPass) {
  const cuda::Operand operand = cuda::ExactOutput("y", DType::kF32, 4);
  EXPECT_TRUE(Passes(operand, {1, 2, 3, 4}, {1, 2, 3, 4}));
  EXPECT_FALSE(
      Passes(operand, {1, 2, 3, std::nextafter(4.0F, 5.0F)}, {1, 2, 3, 4}));
}

TEST(OperandCheckTest, KnowsTheSizeOfWhatIsWanted) {
  // Of {3, 4, 0, 0}: 2.5.
  const cuda::Operand operand = Result(0, 0, 0.1);
  EXPECT_TRUE(Passes(operand, {3, 4, 0.24F, 0}, {3, 4, 0, 0}));
  EXPECT_FALSE(Passes(operand, {3, 4, 0.26F, 0}, {3, 4, 0, 0}));
}

TEST(OperandCheckTest, LooksNowhereElseThanInItsRanges) {
  cuda::Operand operand = Result(0, 0.1);
  operand.ranges = {{0, 1}, {2, 3}};
  EXPECT_TRUE(Passes(operand, {1, NAN, 3, NAN}, {1, 2, 3, 4}));
  EXPECT_FALSE(Passes(operand, {1, 2, 4, 4}, {1, 2, 3, 4}));
}

TEST(OperandCheckTest, SaysWhatIsWrong) {
  const std::vector<float> got = {1, 2, 7, 4}, want = {1, 2, 3, 4};
  const OperandCheck check =
      CompareOperand(Result(0, 0.1), got.data(), want.data());
  EXPECT_FALSE(check.passed);
  EXPECT_EQ(check.reason.substr(0, 3), "y: ");
  ASSERT_EQ(check.error.mismatches.size(), 1U);
  EXPECT_EQ(check.error.mismatches[0].index, std::vector<int64_t>{2});
  EXPECT_EQ(check.error.mismatches[0].got, 7);
}

}  // namespace
}  // namespace shardproof
