// Runs under mpirun. An abort destroys the world, and a process has only one:
// run one test at a time (--gtest_filter).
#include <gtest/gtest.h>

#include <string>

#include "collectives/backend/conformance.h"
#include "collectives/backend/mpi/mpi_test_main.h"

namespace shardproof {
namespace {

class MpiAbortTest : public testing::TestWithParam<ConformanceCheck> {};

INSTANTIATE_TEST_SUITE_P(Abort, MpiAbortTest,
                         testing::ValuesIn(AbortConformance()),
                         [](const auto& info) {
                           return std::string(info.param.name);
                         });

TEST_P(MpiAbortTest, World) {
  ASSERT_TRUE(TestWorld().world().health().ok())
      << "run one test at a time: --gtest_filter";
  const Status status = GetParam().run(TestWorld().world());
  EXPECT_TRUE(status.ok()) << status.ToString();
}

}  // namespace
}  // namespace shardproof
