// The cuda backend on emulated GPUs against what every backend must do: everything besides Native is the thread
// backend's, on managed memory.
#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <tuple>

#include "collectives/backend/conformance.h"
#include "collectives/backend/cuda/device/cuda_world.h"
#include "collectives/backend/cuda/device/emulated_gpu.h"

namespace shardproof::cuda {
namespace {

// A check, ranks, and GPUs.
using Case = std::tuple<ConformanceCheck, int, int>;

std::string CaseName(const ::testing::TestParamInfo<Case>& info) {
  const auto& [check, ranks, gpus] = info.param;
  return fmt::format("{}_{}ranks_{}gpus", check.name, ranks, gpus);
}

std::unique_ptr<ThreadWorld> MakeWorld(int ranks, int gpus) {
  auto system = OpenEmulatedGpus({.count = gpus});
  EXPECT_TRUE(system.ok()) << system.status().ToString();
  auto world = CreateCudaWorld({.ranks = ranks, .gpus = *system});
  EXPECT_TRUE(world.ok()) << world.status().ToString();
  return *std::move(world);
}

class CudaConformanceTest : public ::testing::TestWithParam<Case> {};
INSTANTIATE_TEST_SUITE_P(
    Communicator, CudaConformanceTest,
    ::testing::Combine(::testing::ValuesIn(CommunicatorConformance()),
                       ::testing::Values(1, 2, 3, 5), ::testing::Values(1, 2)),
    CaseName);

TEST_P(CudaConformanceTest, WorldAndGroups) {
  const auto& [check, ranks, gpus] = GetParam();
  const auto world = MakeWorld(ranks, gpus);
  const Status status =
      world->Run([run = check.run](const Communicator& comm) -> Status {
        if (comm.backend_name() != "cuda") return Internal("not cuda");
        SP_RETURN_IF_ERROR(run(comm).WithContext("in the world"));
        SP_ASSIGN_OR_RETURN(const Communicator group,
                            comm.Split(comm.rank() % 2, -comm.rank()));
        if (group.backend_name() != "cuda") return Internal("not cuda");
        return run(group).WithContext("in a group");
      });
  EXPECT_TRUE(status.ok()) << status.ToString();
  EXPECT_TRUE(world->healthy());
}

class CudaAbortTest : public ::testing::TestWithParam<Case> {};
INSTANTIATE_TEST_SUITE_P(
    Abort, CudaAbortTest,
    ::testing::Combine(::testing::ValuesIn(AbortConformance()),
                       ::testing::Values(2, 3), ::testing::Values(1, 2)),
    CaseName);

TEST_P(CudaAbortTest, EndsEveryWait) {
  const auto& [check, ranks, gpus] = GetParam();
  const auto world = MakeWorld(ranks, gpus);
  const Status status = world->Run(check.run);
  EXPECT_TRUE(status.ok()) << status.ToString();
  EXPECT_FALSE(world->healthy());
}

}  // namespace
}  // namespace shardproof::cuda
