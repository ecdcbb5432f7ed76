// That there is a kernel for everything, linked with nvcc's objects. Needs no GPU; nothing runs.
#include "attention/kernels/cuda/kernel_table.h"

#include <gtest/gtest.h>

#include <set>

namespace shardproof::cuda {
namespace {

TEST(FlashKernelTableTest, HasAKernelForEverything) {
  std::set<const void*> kernels;
  for (int number = 0; number < kFlashKernels; ++number) {
    const auto kernel = static_cast<FlashKernel>(number);
    for (const DType dtype : {DType::kBF16, DType::kF16}) {
      for (const int head_dim : {64, 128}) {
        const FlashKernelEntry found = FindFlashKernel(kernel, dtype, head_dim);
        ASSERT_NE(found.kernel, nullptr) << number << " of " << Name(dtype);
        EXPECT_TRUE(kernels.insert(found.kernel).second);
        EXPECT_EQ(found.threads % 32, 0);
        EXPECT_GT(found.rows, 0);
        // What a block of sm_80 may have, and one of sm_90.
        const bool for_90 = kernel == FlashKernel::kWarpgroupForward;
        EXPECT_LE(found.shared_bytes, (for_90 ? 227u : 163u) << 10);
        EXPECT_EQ(found.encode != nullptr, for_90);
      }
    }
  }
  EXPECT_EQ(kernels.size(), 20u);
}

TEST(FlashKernelTableTest, HasNoneForOthers) {
  EXPECT_EQ(FindFlashKernel(FlashKernel::kForward, DType::kF32, 64).kernel,
            nullptr);
  EXPECT_EQ(FindFlashKernel(FlashKernel::kForward, DType::kBF16, 96).kernel,
            nullptr);
}

}  // namespace
}  // namespace shardproof::cuda
