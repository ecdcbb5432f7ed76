#include "layers/kernels/cuda/benchmark/point.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <vector>

namespace shardproof::cuda {
namespace {

TEST(OperandTest, RandomIsNotPeriodicInItsRows) {
  // More than are drawn.
  constexpr int64_t kCount = 3 * 1048573 + 100;
  const Operand operand = Random("x", DType::kF32, kCount, 2);
  std::vector<float> values(kCount, 100.0F);
  operand.fill(values.data());
  const auto [least, most] = std::ranges::minmax(values);
  EXPECT_GE(least, -2);
  EXPECT_LT(most, 2);
  EXPECT_LT(least, -1.99F);
  EXPECT_GT(most, 1.99F);
  for (const int64_t row : {1, 4096, 1 << 20}) {
    EXPECT_NE(values[0], values[static_cast<size_t>(row)]) << row;
  }
  EXPECT_EQ(values[kCount - 1], values[99]);
}

TEST(OperandTest, BetweenAndBelow) {
  std::vector<float> values(1000);
  RandomBetween("x", DType::kF32, 1000, 3, 5).fill(values.data());
  EXPECT_GE(std::ranges::min(values), 3);
  EXPECT_LE(std::ranges::max(values), 5);
  EXPECT_GT(std::ranges::max(values) - std::ranges::min(values), 1.9F);
  std::vector<int64_t> indices(1000);
  RandomIndices("i", 1000, 10).fill(indices.data());
  EXPECT_EQ(std::ranges::min(indices), 0);
  EXPECT_EQ(std::ranges::max(indices), 9);
}

const KernelPoint& Find(const std::vector<KernelPoint>& points,
                        const std::string& name, DType dtype) {
  return *std::ranges::find_if(points, [&](const KernelPoint& p) {
    return p.name == name && p.dtype == dtype;
  });
}

// The table of README.md, for n elements of e bytes.
TEST(PointsTest, CountTheBytesOfTheReadme) {
  const ModelShape m;
  const std::vector<KernelPoint> points = AllKernelPoints(m);
  const double rows = 4096.0 * 4096, wide = 4096.0 * 14336;
  const std::map<std::string, double> of_wide = {
      {"gelu", 2}, {"gelu_backward", 3}, {"swiglu", 3}, {"swiglu_backward", 5}};
  for (const auto& [name, tensors] : of_wide) {
    EXPECT_EQ(Find(points, name, DType::kBF16).kernels[0].bytes,
              tensors * 2 * wide)
        << name;
    EXPECT_EQ(Find(points, name, DType::kF32).kernels[0].bytes,
              tensors * 4 * wide)
        << name;
  }
  EXPECT_EQ(Find(points, "dropout", DType::kBF16).kernels[0].bytes, 4 * rows);
  // What is of rows or columns alone is little.
  const auto about = [&](const char* name, DType dtype, double bytes) {
    EXPECT_NEAR(Find(points, name, dtype).kernels[0].bytes / bytes, 1, 0.01)
        << name;
  };
  about("normalize", DType::kBF16, 4 * rows);
  about("normalize_backward", DType::kF32, 12 * rows);
  // Angles of half a head in f32 too.
  about("rope", DType::kBF16, (4 + 0.125) * rows);
  about("softmax", DType::kBF16, 6 * rows);
  about("softmax_backward", DType::kF32, 12 * rows);
  about("cross_entropy_local", DType::kBF16, 2 * 4096.0 * 16032);
  about("cross_entropy_gradient", DType::kF32, 8 * 4096.0 * 16032);
  about("adam_step", DType::kBF16, (2 + 12 + 2 + 12) * wide);
  about("adam_step", DType::kF32, (4 + 12 + 12) * wide);
  about("sgd_step", DType::kF32, (4 + 8 + 8) * wide);
  about("combine_rows", DType::kBF16, 6 * rows);
}

TEST(PointsTest, CountTheOperationsOfAProduct) {
  const std::vector<KernelPoint> points = AllKernelPoints({});
  const KernelPoint& point = Find(points, "gemm", DType::kF32);
  EXPECT_EQ(point.kernels[0].flops, 2.0 * 4096 * 6144 * 4096);
}

}  // namespace
}  // namespace shardproof::cuda
