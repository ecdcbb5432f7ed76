// Our declarations of cuBLASLt's interface against cublasLt.h, where there is a toolkit: a machine without it loads
// libraries all the same.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "layers/kernels/cuda/blas/cublaslt_header.h"

namespace shardproof::cublaslt {
namespace {

TEST(CublasLtAbiTest, IsThatOfTheHeader) {
  const HeaderComparison comparison = CompareWithHeader();
  if (comparison.compared == 0) {
    GTEST_SKIP() << "the CUDA toolkit here has no cublasLt.h";
  }
  EXPECT_GE(comparison.compared, 60);
  EXPECT_THAT(comparison.differences, ::testing::IsEmpty());
}

}  // namespace
}  // namespace shardproof::cublaslt
