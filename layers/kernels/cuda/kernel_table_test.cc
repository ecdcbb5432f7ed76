// That there is a kernel for everything, linked with nvcc's objects. Needs no GPU; nothing runs.
#include "layers/kernels/cuda/kernel_table.h"

#include <gtest/gtest.h>

#include <set>

namespace shardproof::cuda {
namespace {

TEST(LayerKernelTableTest, HasAKernelForEverything) {
  std::set<const void*> kernels;
  size_t wanted = 0;
  for (int number = 0; number < kLayerKernels; ++number) {
    const auto kernel = static_cast<LayerKernel>(number);
    for (const DType dtype : {DType::kF32, DType::kBF16, DType::kF16}) {
      const void* const found = FindLayerKernel(kernel, dtype);
      ASSERT_NE(found, nullptr) << number << " of " << Name(dtype);
      kernels.insert(found);
    }
    wanted += IsOfOneType(kernel) ? 1 : 3;
  }
  // Gradients of f32 parameters are as wide as they are: SGD and Adam have one kernel for both.
  EXPECT_EQ(kernels.size(), wanted - 2);
  EXPECT_EQ(kernels.size(), 86u);
}

TEST(LayerKernelTableTest, HasNoneForOtherTypes) {
  EXPECT_EQ(FindLayerKernel(LayerKernel::kNormalize, DType::kI32), nullptr);
  EXPECT_EQ(FindLayerKernel(LayerKernel::kNormalize, DType::kF64), nullptr);
}

}  // namespace
}  // namespace shardproof::cuda
