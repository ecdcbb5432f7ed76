// That the stub finds nothing, whatever it is asked for.
#include <gtest/gtest.h>

#include "layers/kernels/cuda/kernel_table.h"

namespace shardproof::cuda {
namespace {

TEST(KernelTableStubTest, FindsNothing) {
  for (int number = 0; number < kLayerKernels; ++number) {
    EXPECT_EQ(FindLayerKernel(static_cast<LayerKernel>(number), DType::kBF16),
              nullptr);
  }
}

}  // namespace
}  // namespace shardproof::cuda
