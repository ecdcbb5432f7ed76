// What the simulator counts.
#include "pipeline/simulator.h"

#include <gtest/gtest.h>

#include <string>

#include "pipeline/registry.h"

namespace shardproof {
namespace {

// Both begin when the later can, end together, and are held in their order.
TEST(Simulator, TakesPairsAtOnce) {
  Schedule s = *BuildSchedule("eager_1f1b", {2, 3, 1});
  ASSERT_EQ(s.Text(s.actions[0][2]) + s.Text(s.actions[0][3]), "F2B0");
  s.actions[0][2].with_next = true;
  const StageCosts costs = {.overlapped = 2.5};
  const auto simulated = Simulate(s, costs);
  ASSERT_TRUE(simulated.ok());
  // B0 of rank 1 ends at 4.
  for (const size_t i : {2, 3}) {
    EXPECT_EQ(simulated->times[0][i].start, 4);
    EXPECT_EQ(simulated->times[0][i].end, 6.5);
  }
  EXPECT_EQ(simulated->busy[0], 2 + 2.5 + 2 * 2);
  EXPECT_EQ(simulated->peak[0], 3);
  const auto apart = Simulate(s, {});
  EXPECT_EQ(apart->times[0][2].start, 2);
  EXPECT_EQ(apart->times[0][3].start, 4);
}

TEST(Simulator, CountsWhatMessagesTake) {
  const Schedule s = *BuildSchedule("naive", {3, 1, 1});
  const auto simulated =
      Simulate(s, {.forward = 2, .input = 3, .weight = 1, .latency = 0.5});
  ASSERT_TRUE(simulated.ok());
  // Three F and three B, and four messages between.
  EXPECT_EQ(simulated->makespan, 3 * 2 + 3 * 4 + 4 * 0.5);
  EXPECT_EQ(simulated->times[2][0].start, 2 * 2 + 2 * 0.5);
  EXPECT_EQ(simulated->busy[1], 6);
}

}  // namespace
}  // namespace shardproof
