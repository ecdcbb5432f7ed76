// That there is a kernel for everything, linked with nvcc's objects. Needs no GPU; nothing runs.
#include "collectives/backend/cuda/kernels/kernel_table.h"

#include <gtest/gtest.h>

#include <set>

namespace shardproof::cuda {
namespace {

TEST(KernelTableTest, HasAKernelForEverything) {
  std::set<const void*> kernels;
  for (const Primitive primitive : kAllPrimitives) {
    for (const DType dtype : kAllDTypes) {
      for (const ReduceOp op : kAllReduceOps) {
        const void* const kernel = FindKernel(primitive, dtype, op);
        ASSERT_NE(kernel, nullptr) << static_cast<int>(primitive) << " "
                                   << Name(dtype) << " " << Name(op);
        kernels.insert(kernel);
      }
    }
  }
  // Its own for each type and operation of the four that reduce; one for each of the five that move.
  EXPECT_EQ(kernels.size(), 4u * 10 * 6 + 5);
}

}  // namespace
}  // namespace shardproof::cuda
