// Where ranks of several nodes live, and which of them share a GPU.
#include <gtest/gtest.h>

#include <functional>
#include <memory>
#include <vector>

#include "collectives/backend/cuda/device/cuda_world.h"
#include "collectives/backend/cuda/device/emulated_gpu.h"
#include "collectives/backend/cuda/device/gpu_backend.h"
#include "collectives/backend/thread/thread_world.h"

namespace shardproof::cuda {
namespace {

// Runs `f` on ranks of nodes that have two GPUs each.
void OnNodes(int ranks, int ranks_per_node,
             const std::function<Status(
                 const Communicator&, const std::shared_ptr<GpuSystem>&)>& f) {
  const auto gpus = OpenEmulatedGpus({.count = 2});
  ASSERT_TRUE(gpus.ok()) << gpus.status().ToString();
  const auto world =
      ThreadWorld::Create({.ranks = ranks, .ranks_per_node = ranks_per_node});
  ASSERT_TRUE(world.ok()) << world.status().ToString();
  const Status status =
      (*world)->Run([&](const Communicator& comm) { return f(comm, *gpus); });
  EXPECT_TRUE(status.ok()) << status.ToString();
}

Status Expect(const Communicator& comm, const std::shared_ptr<GpuSystem>& gpus,
              int gpu, int machine, GpuMates expected) {
  SP_ASSIGN_OR_RETURN(
      const GpuMates mates,
      FindGpuMates(comm, {.gpus = gpus, .gpu = gpu, .machine = machine}));
  EXPECT_EQ(mates.first, expected.first) << "rank " << comm.rank();
  EXPECT_EQ(mates.second, expected.second) << "rank " << comm.rank();
  return OkStatus();
}

TEST(GpuPlaceTest, RanksOfANodeTakeItsGpusInTurn) {
  const Topology topology{.node_of = {0, 1, 0, 0, 1}, .nodes = 2};
  const auto gpus = OpenEmulatedGpus({.count = 2});
  ASSERT_TRUE(gpus.ok()) << gpus.status().ToString();
  std::vector<int> places;
  for (int r = 0; r < 5; ++r) places.push_back(GpuOfRank(topology, r, **gpus));
  EXPECT_EQ(places, (std::vector<int>{0, 0, 1, 0, 1}));
}

TEST(GpuPlaceTest, GpusOfTwoNodesAreNotTheSame) {
  OnNodes(4, 2, [](const Communicator& comm, const auto& gpus) {
    return Expect(comm, gpus, GpuOfRank(comm.topology(), comm.rank(), *gpus),
                  comm.rank() / 2, {});
  });
}

TEST(GpuPlaceTest, TheFirstThatSharesOne) {
  OnNodes(6, 3, [](const Communicator& comm, const auto& gpus) -> Status {
    const int gpu = GpuOfRank(comm.topology(), comm.rank(), *gpus);
    const int machine = comm.rank() / 3;
    SP_RETURN_IF_ERROR(Expect(comm, gpus, gpu, machine, {0, 2}));
    // Ranks 2, 1 and 0 of each node, on GPUs 0, 1 and 0.
    SP_ASSIGN_OR_RETURN(const Communicator node,
                        comm.Split(comm.rank() / 3, -comm.rank()));
    SP_RETURN_IF_ERROR(Expect(node, gpus, gpu, machine, {0, 2}));
    SP_ASSIGN_OR_RETURN(const Communicator across,
                        comm.Split(comm.rank() % 3, comm.rank()));
    return Expect(across, gpus, gpu, machine, {});
  });
}

}  // namespace
}  // namespace shardproof::cuda
