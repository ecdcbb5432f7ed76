// Every schedule that is registered: it runs, and is what its formulas say.
#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "pipeline/registry.h"
#include "pipeline/simulator.h"
#include "pipeline/validator.h"

namespace shardproof {
namespace {

// How many of EverySchedule can be built, from what each refuses: none is left
// out unseen.
const std::map<std::string, int> kBuilt = {{"breadth_first", 3360},
                                           {"chimera", 85},
                                           {"dualpipe", 192},
                                           {"dualpipe_v", 705},
                                           {"eager_1f1b", 840},
                                           {"gpipe", 840},
                                           {"interleaved", 588},
                                           {"naive", 840},
                                           {"one_f_one_b", 840},
                                           {"zb_auto", 840},
                                           {"zb_h1", 840},
                                           {"zb_h2", 720},
                                           {"zb_v", 705}};

// Calls f(info, shape, schedule) for all that can be built: ranks 2 .. 16,
// micro-batches p .. 64, chunks 1 .. 4.
template <class F>
void EverySchedule(const F& f) {
  for (const ScheduleInfo& info : Schedules()) {
    int built = 0;
    for (int p = 2; p <= 16; ++p) {
      for (int m = p; m <= 64; ++m) {
        for (int v = 1; v <= (info.takes_chunks ? 4 : 1); ++v) {
          const ScheduleShape shape = {p, m, v};
          const auto schedule = BuildSchedule(info.name, shape);
          if (!schedule.ok()) continue;
          ++built;
          SCOPED_TRACE(info.name + " " + std::to_string(p) + " ranks " +
                       std::to_string(m) + " micro-batches " +
                       std::to_string(v) + " chunks");
          f(info, shape, *schedule);
          if (::testing::Test::HasFailure()) return;
        }
      }
    }
    EXPECT_EQ(built, kBuilt.at(info.name)) << info.name;
  }
}

TEST(Schedules, AreThere) {
  std::string names;
  for (const ScheduleInfo& info : Schedules()) names += info.name + " ";
  EXPECT_EQ(names,
            "breadth_first chimera dualpipe dualpipe_v eager_1f1b gpipe "
            "interleaved naive one_f_one_b zb_auto zb_h1 zb_h2 zb_v ");
}

// With unit costs and what an I leaves half of: bubbles, memory and messages are
// exactly those of the formulas.
TEST(Schedules, AreWhatTheirFormulasSay) {
  EverySchedule([](const ScheduleInfo& info, const ScheduleShape& shape,
                   const Schedule& schedule) {
    const StageCosts costs = {.held_to_weight = 0.5};
    const auto s = Simulate(schedule, costs);
    ASSERT_TRUE(s.ok()) << s.status().ToString();
    for (int rank = 0; rank < shape.ranks; ++rank) {
      const double idle =
          info.bubble_within ? s->IdleWithin(rank) : s->Idle(rank);
      const double bubble = info.bubble(shape, costs);
      const double held = s->peak[static_cast<size_t>(rank)];
      const double peak = info.peak(shape, costs, rank);
      // A quarter has no rounding in binary, a third of a stage has.
      EXPECT_LE(idle, bubble + 1e-9);
      EXPECT_LE(held, peak + 1e-9);
      if (info.at_most) continue;
      EXPECT_GE(idle, bubble - 1e-9);
      EXPECT_GE(held, peak - 1e-9);
    }
    EXPECT_EQ(s->messages, info.messages(shape));
  });
}

TEST(Schedules, RunWithMessagesThatDoNotBlock) {
  EverySchedule([](const ScheduleInfo&, const ScheduleShape& shape,
                   const Schedule& schedule) {
    if (shape.micro_batches > 24) return;  // Nothing new comes.
    const Status valid =
        ValidateSchedule(schedule, MessageSemantics::kBuffered);
    EXPECT_TRUE(valid.ok()) << valid.ToString();
  });
}

// Chimera's bubble is known for all costs: F may take as long as the whole B,
// less or more.
TEST(Schedules, ChimeraIsWhatItsFormulaSaysForAllCosts) {
  const ScheduleInfo& chimera = *FindSchedule("chimera");
  for (const int p : {2, 4, 6, 8, 16}) {
    for (int m = p; m <= 4 * p; m += p) {
      const Schedule schedule = *BuildSchedule("chimera", {p, m});
      for (const StageCosts& costs :
           {StageCosts{2, 1, 1}, {1, 1, 1}, {1, 2, 1}, {4, 1, 1}, {8, 7, 5}}) {
        const auto s = Simulate(schedule, costs);
        ASSERT_TRUE(s.ok()) << s.status().ToString();
        for (int rank = 0; rank < p; ++rank) {
          EXPECT_EQ(s->Idle(rank), chimera.bubble({p, m}, costs));
        }
        // The fraction of the paper is that of F = B.
        if (costs.forward != costs.input + costs.weight) continue;
        EXPECT_DOUBLE_EQ(s->Idle(0) / s->makespan,
                         (p - 2.0) / (2.0 * m + p - 2));
      }
    }
  }
}

// F and B of a pair take less together than one after the other, but no less than
// B: the formula of the literature, where F = I and W is no longer.
TEST(Schedules, DualPipeIsWhatItsFormulaSaysWithPairs) {
  for (const char* name : {"dualpipe", "dualpipe_v"}) {
    const ScheduleInfo& info = *FindSchedule(name);
    for (int p = 2; p <= 16; ++p) {
      for (int m = 2 * p; m <= 2 * p + 8; m += 2) {
        const auto schedule = BuildSchedule(name, {p, m});
        if (!schedule.ok()) continue;
        // From an end to where directions meet.
        const int h = info.name == "dualpipe" ? p / 2 : p;
        const double share = info.name == "dualpipe" ? 1 : 0.5;
        for (const double weight : {0.0, 0.5, 1.0}) {
          for (const double together : {0.0, 0.25, 0.5, 1.0}) {
            StageCosts costs = {.weight = weight};
            // From B to F + B.
            costs.overlapped = 1 + weight + together;
            const auto s = Simulate(*schedule, costs);
            ASSERT_TRUE(s.ok()) << s.status().ToString();
            for (int rank = 0; rank < p; ++rank) {
              const int i = std::min(rank, 2 * h - 1 - rank);
              const int fewer = std::max(0, h - 2 - i);
              EXPECT_NEAR(
                  s->Idle(rank),
                  info.bubble({p, m}, costs) - fewer * (1 - together) * share,
                  1e-9)
                  << name << ", rank " << rank << " of " << p;
              EXPECT_EQ(s->peak[static_cast<size_t>(rank)],
                        info.peak({p, m}, costs, rank));
            }
          }
        }
      }
    }
  }
}

// Which of them run where sends wait for their receiver.
TEST(Schedules, RunOrDeadlockWithMessagesThatWait) {
  const std::map<std::string, std::pair<bool, bool>> runs = {
      {"breadth_first", {true, true}}, {"eager_1f1b", {true, false}},
      {"gpipe", {true, true}},         {"interleaved", {true, false}},
      {"dualpipe_v", {false, false}},  {"zb_v", {false, false}},
      {"dualpipe", {false, false}},    {"chimera", {true, false}},
      {"zb_auto", {true, false}},      {"naive", {true, true}},
      {"one_f_one_b", {true, false}},  {"zb_h1", {true, false}},
      {"zb_h2", {false, false}}};
  for (const ScheduleInfo& info : Schedules()) {
    const Schedule schedule = *BuildSchedule(info.name, {4, 8, 1});
    const auto [grouped, blocking] = runs.at(info.name);
    EXPECT_EQ(ValidateSchedule(schedule, MessageSemantics::kGrouped).ok(),
              grouped)
        << info.name;
    EXPECT_EQ(ValidateSchedule(schedule, MessageSemantics::kBlocking).ok(),
              blocking)
        << info.name;
  }
  EXPECT_EQ(ValidateSchedule(*BuildSchedule("one_f_one_b", {2, 2, 1}),
                             MessageSemantics::kBlocking)
                .message(),
            "rank 0 sends F1 to rank 1, which sends B0 to rank 0: a deadlock "
            "(blocking messages)");
  // Named after what made them.
  EXPECT_EQ(ValidateSchedule(*BuildSchedule("zb_h1", {2, 2, 1}),
                             MessageSemantics::kBlocking)
                .message(),
            "rank 0 sends F1 to rank 1, which sends I0 to rank 0: a deadlock "
            "(blocking messages)");
}

TEST(Schedules, RefuseWhatTheyCannotBeMadeFor) {
  const auto refusal = [](const char* name, const ScheduleShape& shape) {
    return std::string(BuildSchedule(name, shape).status().message());
  };
  EXPECT_EQ(refusal("dualpipe9", {2, 2, 1}).find("there is no schedule"), 0U);
  EXPECT_EQ(refusal("gpipe", {2, 2, 2}),
            "gpipe has one chunk on each rank, not 2");
  EXPECT_EQ(refusal("gpipe", {2, 0, 1}),
            "gpipe over 2 ranks, of 0 micro-batches and 1 chunks: a size is "
            "below 1");
  EXPECT_EQ(refusal("interleaved", {4, 6, 2}),
            "interleaved needs a multiple of 4 micro-batches, not 6");
  EXPECT_EQ(refusal("zb_h2", {4, 6, 1}),
            "zb_h2 needs 7 micro-batches for 4 ranks, not 6");
  EXPECT_EQ(refusal("chimera", {3, 6}),
            "chimera needs an even number of ranks, not 3");
  EXPECT_EQ(refusal("chimera", {4, 6}),
            "chimera needs a multiple of 4 micro-batches, not 6");
  EXPECT_EQ(refusal("dualpipe", {3, 6}),
            "dualpipe needs an even number of ranks, not 3");
  for (const int m : {6, 9}) {
    EXPECT_EQ(
        refusal("dualpipe", {4, m}),
        "dualpipe needs an even number of micro-batches, at least 8 for 4 "
        "ranks, not " +
            std::to_string(m));
  }
  EXPECT_EQ(refusal("dualpipe_v", {4, 7}),
            "dualpipe_v needs 8 micro-batches for 4 ranks, not 7");
  EXPECT_EQ(refusal("zb_auto", {4, 8, 1, 0.5}),
            "zb_auto needs memory for a micro-batch, 1, not 0.5");
  EXPECT_EQ(refusal("gpipe", {4, 8, 1, -1}),
            "gpipe with a memory limit of -1: it is below 0");
}

}  // namespace
}  // namespace shardproof
