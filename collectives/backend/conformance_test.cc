// The thread backend against the conformance list. The other backends run the
// same list in their own tests.
#include "collectives/backend/conformance.h"

#include <gtest/gtest.h>

#include <memory>
#include <set>
#include <string>
#include <tuple>
#include <vector>

#include "collectives/backend/thread/thread_world.h"

namespace shardproof {
namespace {

// A check, ranks, and ranks per node (0: one node).
using Case = std::tuple<ConformanceCheck, int, int>;

std::string CaseName(const testing::TestParamInfo<Case>& info) {
  const auto& [check, ranks, per_node] = info.param;
  return std::string(check.name) + "_" + std::to_string(ranks) + "ranks" +
         (per_node > 0 ? "_" + std::to_string(per_node) + "per_node" : "");
}

std::unique_ptr<ThreadWorld> MakeWorld(int ranks, int per_node) {
  auto world =
      ThreadWorld::Create({.ranks = ranks, .ranks_per_node = per_node});
  EXPECT_TRUE(world.ok()) << world.status().ToString();
  return *std::move(world);
}

class ThreadConformanceTest : public testing::TestWithParam<Case> {};
INSTANTIATE_TEST_SUITE_P(
    Communicator, ThreadConformanceTest,
    testing::Combine(testing::ValuesIn(CommunicatorConformance()),
                     testing::Values(1, 2, 3, 5, 8), testing::Values(0, 2)),
    CaseName);

TEST_P(ThreadConformanceTest, WorldAndGroups) {
  const auto& [check, ranks, per_node] = GetParam();
  const auto world = MakeWorld(ranks, per_node);
  const Status status =
      world->Run([run = check.run](const Communicator& comm) -> Status {
        SP_RETURN_IF_ERROR(run(comm).WithContext("in the world"));
        SP_ASSIGN_OR_RETURN(const Communicator group,
                            comm.Split(comm.rank() % 2, -comm.rank()));
        return run(group).WithContext("in a group");
      });
  EXPECT_TRUE(status.ok()) << status.ToString();
  EXPECT_TRUE(world->healthy());
}

class ThreadAbortTest : public testing::TestWithParam<Case> {};
INSTANTIATE_TEST_SUITE_P(Abort, ThreadAbortTest,
                         testing::Combine(testing::ValuesIn(AbortConformance()),
                                          testing::Values(2, 3, 8),
                                          testing::Values(0, 2)),
                         CaseName);

TEST_P(ThreadAbortTest, EndsEveryWait) {
  const auto& [check, ranks, per_node] = GetParam();
  const auto world = MakeWorld(ranks, per_node);
  const Status status = world->Run(check.run);
  EXPECT_TRUE(status.ok()) << status.ToString();
  EXPECT_FALSE(world->healthy());
}

TEST(ConformanceListTest, NamesAreUnique) {
  std::set<std::string_view> names;
  for (const auto list : {CommunicatorConformance(), AbortConformance()}) {
    EXPECT_FALSE(list.empty());
    for (const ConformanceCheck& check : list) {
      EXPECT_TRUE(names.insert(check.name).second) << check.name;
    }
  }
}

// The list itself must notice damage: a pattern that differs in one byte.
TEST(ConformanceListTest, VerifyNoticesOneByte) {
  std::vector<std::byte> data(1000);
  conformance::Fill(data, 1, 2, 3);
  EXPECT_TRUE(conformance::Verify(data, 1, 2, 3, "x").ok());
  EXPECT_FALSE(conformance::Verify(data, 2, 1, 3, "x").ok());
  EXPECT_FALSE(conformance::Verify(data, 1, 2, 4, "x").ok());
  data[999] ^= std::byte{1};
  EXPECT_FALSE(conformance::Verify(data, 1, 2, 3, "x").ok());
}

}  // namespace
}  // namespace shardproof
