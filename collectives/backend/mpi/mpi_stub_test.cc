// The stub that stands for the backend where there is no MPI.
#include <gtest/gtest.h>

#include <cstdlib>
#include <string_view>

#include "collectives/backend/mpi/mpi_world.h"

namespace shardproof {
namespace {

TEST(MpiStubTest, SaysThatThereIsNoMpi) {
  const auto world = MpiWorld::Create();
  ASSERT_EQ(world.status().code(), StatusCode::kUnavailable);
  EXPECT_NE(world.status().message().find("built without MPI"),
            std::string_view::npos);
  EXPECT_EQ(MpiVersion().status().code(), StatusCode::kUnavailable);
}

TEST(StartedByMpiLauncherTest, ReadsTheEnvironment) {
  for (const char* name : {"OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "PMIX_RANK"}) {
    unsetenv(name);
  }
  EXPECT_FALSE(StartedByMpiLauncher());
  unsetenv("SLURM_STEP_NUM_TASKS");
  EXPECT_FALSE(HasLauncherPeers());
  setenv("PMIX_RANK", "0", 1);
  EXPECT_TRUE(HasLauncherPeers());  // Who does not say it may have.
  setenv("SLURM_STEP_NUM_TASKS", "1", 1);
  EXPECT_FALSE(HasLauncherPeers());
  unsetenv("SLURM_STEP_NUM_TASKS");
  setenv("PMI_SIZE", "1", 1);
  EXPECT_TRUE(StartedByMpiLauncher());
  EXPECT_FALSE(HasLauncherPeers());
  setenv("PMI_SIZE", "4", 1);
  EXPECT_TRUE(StartedByMpiLauncher());
  EXPECT_TRUE(HasLauncherPeers());
  unsetenv("PMIX_RANK");
  unsetenv("PMI_SIZE");
}

}  // namespace
}  // namespace shardproof
