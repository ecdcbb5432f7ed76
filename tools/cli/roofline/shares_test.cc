#include "tools/cli/roofline/shares.h"

#include <gtest/gtest.h>

#include <numeric>
#include <vector>

namespace shardproof {
namespace {

GpuCeilings H200() {
  return {.copy_bytes_per_us = 4.0e6,
          .flops_per_us = {{DType::kBF16, 800e6}, {DType::kF32, 50e6}}};
}

TEST(ShareTest, OfACopy) {
  // 4 GB/s are 4e3 bytes a microsecond.
  const Share share =
      ShareOf({.name = "Gelu", .bytes = 8e6}, DType::kBF16, 4, H200());
  EXPECT_DOUBLE_EQ(share.gbps, 2000);
  EXPECT_EQ(share.tflops, 0);
  EXPECT_FALSE(share.of_products);
  EXPECT_DOUBLE_EQ(*share.floor_us, 2);
  EXPECT_DOUBLE_EQ(*share.of_ceiling, 0.5);
}

TEST(ShareTest, OfAProductOfItsType) {
  const cuda::KernelCost cost = {.name = "Gemm", .bytes = 1e6, .flops = 4e9};
  const Share bf16 = ShareOf(cost, DType::kBF16, 10, H200());
  EXPECT_TRUE(bf16.of_products);
  EXPECT_DOUBLE_EQ(bf16.tflops, 400);
  EXPECT_DOUBLE_EQ(*bf16.floor_us, 5);
  EXPECT_DOUBLE_EQ(*bf16.of_ceiling, 0.5);
  EXPECT_DOUBLE_EQ(*ShareOf(cost, DType::kF32, 100, H200()).of_ceiling, 0.8);
}

TEST(ShareTest, HasNoFloorWithoutItsCeiling) {
  const cuda::KernelCost product = {.bytes = 1e6, .flops = 4e9};
  EXPECT_FALSE(ShareOf(product, DType::kF16, 10, H200()).floor_us.has_value());
  EXPECT_FALSE(ShareOf({.bytes = 1e6}, DType::kF32, 10, {}).of_ceiling);
  EXPECT_EQ(ShareOf({.bytes = 1e6}, DType::kF32, 0, H200()).gbps, 0);
}

TEST(ShareTest, FindsWhatIsBelowNineTenthsOfACopy) {
  // A floor of 10 us.
  const cuda::KernelCost cost = {.bytes = 40e6};
  EXPECT_EQ(ShareOf(cost, DType::kF32, 10 / 0.91, H200()).finding, "");
  EXPECT_EQ(ShareOf(cost, DType::kF32, 10 / 0.89, H200()).finding,
            "89 percent of the copy ceiling, wanted 90");
}

TEST(ShareTest, DoesNotJudgeLaunches) {
  // 4 us at the ceiling, and 5.
  EXPECT_EQ(ShareOf({.bytes = 16e6}, DType::kF32, 40, H200()).finding, "");
  EXPECT_NE(ShareOf({.bytes = 20e6}, DType::kF32, 40, H200()).finding, "");
}

TEST(ShareTest, FindsWhatIsBelowWhatWasAskedFor) {
  const cuda::KernelCost cost = {
      .bytes = 1e9, .flops = 1e9, .wanted_tflops = 250};
  EXPECT_EQ(ShareOf(cost, DType::kBF16, 3.9, H200()).finding, "");
  EXPECT_EQ(ShareOf(cost, DType::kBF16, 5, H200()).finding,
            "200 TFLOP/s, wanted 250");
}

TEST(SetsForColdTest, AreTogetherMoreThanTwiceTheL2) {
  for (const int64_t bytes : {1, 10, 39, 40, 41, 79, 80, 81, 1000}) {
    const int sets = SetsForCold(bytes, 40, 1000);
    EXPECT_GT(sets * bytes, 80) << bytes;
    // And no more than are needed.
    if (sets > 1) {
      EXPECT_LE((sets - 1) * bytes, 80) << bytes;
    }
  }
  EXPECT_EQ(SetsForCold(1, 40, 64), 64);
  EXPECT_EQ(SetsForCold(1, 0, 64), 1);
  EXPECT_EQ(SetsForCold(0, 40, 64), 1);
}

TEST(LaunchesPerSampleTest, FillTheSample) {
  EXPECT_EQ(LaunchesPerSample(10, 1000, 200), 100);
  EXPECT_EQ(LaunchesPerSample(999, 1000, 200), 2);
  EXPECT_EQ(LaunchesPerSample(5000, 1000, 200), 1);
  EXPECT_EQ(LaunchesPerSample(1, 1000, 200), 200);
  EXPECT_EQ(LaunchesPerSample(0, 1000, 200), 200);
}

TEST(TimeOfTest, IsTheMedianAndItsInterval) {
  std::vector<double> samples(99);
  std::iota(samples.rbegin(), samples.rend(), 1.0);
  const Record::Time time = TimeOf(samples, 7);
  EXPECT_EQ(time.median, 50);
  EXPECT_EQ(time.min, 1);
  EXPECT_EQ(time.max, 99);
  EXPECT_EQ(time.samples, 99);
  EXPECT_EQ(time.operations_per_sample, 7);
  EXPECT_LT(time.interval_low, 50);
  EXPECT_GT(time.interval_high, 50);
  // In the order of time.
  EXPECT_EQ(time.samples_us, samples);
  EXPECT_EQ(time.cadence, "streaming");
}

}  // namespace
}  // namespace shardproof
