// What the search for a schedule finds: no worse than the schedules made by hand
// for the same memory, and never more memory than it may have.
#include <gtest/gtest.h>

#include <algorithm>
#include <random>
#include <string>
#include <vector>

#include "pipeline/registry.h"
#include "pipeline/simulator.h"
#include "pipeline/validator.h"

namespace shardproof {
namespace {

// Sums of times in another order.
constexpr double kRounding = 1e-9;

double MostIdle(const Simulation& s) {
  double most = 0;
  for (size_t rank = 0; rank < s.times.size(); ++rank) {
    most = std::max(most, s.IdleWithin(static_cast<int>(rank)));
  }
  return most;
}

double MostHeld(const Simulation& s) {
  return *std::max_element(s.peak.begin(), s.peak.end());
}

// Over the ranks' own time and over all of it, where messages take none.
void ExpectNoWorseThan(const std::string& name) {
  int compared = 0;
  for (const StageCosts& costs :
       {StageCosts{}, StageCosts{2, 3, 1}, StageCosts{8, 7, 5},
        StageCosts{.held_to_weight = 0.5}}) {
    for (int p = 2; p <= 16; ++p) {
      for (int m = p; m <= 64; m += m < 32 ? 1 : 4) {
        const auto made = BuildSchedule(name, {p, m});
        if (!made.ok()) continue;
        SCOPED_TRACE(std::to_string(p) + " ranks " + std::to_string(m) +
                     " micro-batches, F of " + std::to_string(costs.forward));
        const auto reference = Simulate(*made, costs);
        ASSERT_TRUE(reference.ok());
        const double limit = MostHeld(*reference);
        const auto found = BuildSchedule("zb_auto", {p, m, 1, limit, costs});
        ASSERT_TRUE(found.ok()) << found.status().ToString();
        const auto s = Simulate(*found, costs);
        ASSERT_TRUE(s.ok()) << s.status().ToString();
        EXPECT_LE(MostIdle(*s), MostIdle(*reference) + kRounding);
        EXPECT_LE(s->makespan, reference->makespan + kRounding);
        EXPECT_LE(MostHeld(*s), limit + kRounding);
        ++compared;
      }
    }
  }
  EXPECT_GT(compared, 1000);
}

TEST(ZbAuto, IsNoWorseThanZbH1WithItsMemory) { ExpectNoWorseThan("zb_h1"); }
TEST(ZbAuto, IsNoWorseThanZbH2WithItsMemory) { ExpectNoWorseThan("zb_h2"); }

// Any costs and any limit from a micro-batch up; fewer micro-batches than ranks
// too.
TEST(ZbAuto, RunsWithinAnyLimit) {
  std::mt19937_64 random(11);
  const auto between = [&](double low, double high) {
    return std::uniform_real_distribution<double>(low, high)(random);
  };
  for (int round = 0; round < 2000; ++round) {
    ScheduleShape shape;
    shape.ranks = 1 + static_cast<int>(random() % 8);
    shape.micro_batches = 1 + static_cast<int>(random() % 24);
    shape.costs = {.forward = between(0, 3),
                   .input = between(0, 3),
                   .weight = between(0, 3),
                   .latency = round % 2 == 0 ? 0 : between(0, 1),
                   .held_to_input = between(0.1, 2),
                   .held_to_weight = between(0, 2)};
    shape.memory_limit =
        std::max(shape.costs.held_to_input, shape.costs.held_to_weight) *
        between(1, 2.0 * shape.ranks);
    SCOPED_TRACE(round);
    const auto schedule = BuildSchedule("zb_auto", shape);
    ASSERT_TRUE(schedule.ok()) << schedule.status().ToString();
    const Status valid =
        ValidateSchedule(*schedule, MessageSemantics::kBuffered);
    ASSERT_TRUE(valid.ok()) << valid.ToString();
    const auto s = Simulate(*schedule, shape.costs);
    ASSERT_TRUE(s.ok());
    EXPECT_LE(MostHeld(*s), shape.memory_limit + kRounding);
  }
}

// No rank waits for as long as a W takes while it has one to do.
TEST(ZbAuto, FillsWaitsWithWeights) {
  const StageCosts costs = {.forward = 1, .input = 1.5, .weight = 0.25};
  for (const double limit : {4.0, 6.0, 16.0}) {
    const Schedule schedule =
        *BuildSchedule("zb_auto", {4, 16, 1, limit, costs});
    const auto s = Simulate(schedule, costs);
    ASSERT_TRUE(s.ok());
    for (size_t rank = 0; rank < 4; ++rank) {
      int waiting = 0;
      double end = 0;
      for (size_t i = 0; i < schedule.actions[rank].size(); ++i) {
        const TimeSpan& time = s->times[rank][i];
        if (waiting > 0) {
          EXPECT_LT(time.start - end, costs.weight)
              << "rank " << rank << ", action " << i;
        }
        end = time.end;
        const ActionKind kind = schedule.actions[rank][i].kind;
        waiting += (kind == ActionKind::kInput ? 1 : 0) -
                   (kind == ActionKind::kWeight ? 1 : 0);
      }
    }
  }
}

// More memory buys time: with that of two micro-batches for each rank nothing of
// a rank's own time is lost, with that of one p - 1 is, and below that more.
TEST(ZbAuto, TradesMemoryForTime) {
  const auto idle = [](double limit) {
    const Schedule s = *BuildSchedule("zb_auto", {8, 24, 1, limit});
    return MostIdle(*Simulate(s, {}));
  };
  EXPECT_EQ(idle(15), 0);
  EXPECT_EQ(idle(8), 7);
  EXPECT_EQ(idle(0), 7);
  EXPECT_GT(idle(4), 7);
  EXPECT_GT(idle(1), idle(4));
}

}  // namespace
}  // namespace shardproof
