// Our declarations of NCCL's interface against nccl.h, where there are a toolkit and the header: a machine without them
// loads libraries all the same.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "collectives/backend/nccl/nccl_header.h"
#include "collectives/backend/nccl/nccl_library.h"

namespace shardproof::nccl {
namespace {

TEST(NcclAbiTest, IsThatOfTheHeader) {
  const HeaderComparison comparison = CompareWithHeader();
  if (comparison.compared == 0) {
    if (HeaderVersion() == 0) GTEST_SKIP() << "nvcc finds no nccl.h here";
    GTEST_SKIP() << "nccl.h here is that of "
                 << NcclVersionText(HeaderVersion())
                 << ", and 2.28 or later is compared with";
  }
  EXPECT_GE(comparison.compared, 55);
  EXPECT_THAT(comparison.differences, ::testing::IsEmpty());
}

}  // namespace
}  // namespace shardproof::nccl
