// Every schedule that is registered: it runs, and is what its formulas say; and
// what the validator, the simulator and the table of values make of broken ones.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <random>
#include <string>
#include <tuple>
#include <vector>

#include "pipeline/drawing.h"
#include "pipeline/registry.h"
#include "pipeline/schedule_csv.h"
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

// --- Validator ---------------------------------------------------------------

std::string Wrong(const Schedule& schedule) {
  return std::string(
      ValidateSchedule(schedule, MessageSemantics::kBuffered).message());
}

TEST(Validator, NamesTheFirstThatIsWrong) {
  const Schedule right = *BuildSchedule("zb_h1", {2, 3, 1});
  ASSERT_EQ(Wrong(right), "");
  Schedule s = right;
  std::erase(s.actions[1], Action{ActionKind::kWeight, 2, 0});
  EXPECT_EQ(Wrong(s), "rank 1 never does W2, of stage 1");
  s = right;
  s.actions[0].push_back({ActionKind::kForward, 1, 0});
  EXPECT_EQ(Wrong(s), "rank 0, action 9, F1: action 1 was the same");
  s = right;
  s.actions[0].push_back({ActionKind::kForward, 7, 0});
  EXPECT_EQ(Wrong(s), "rank 0, action 9, F7: there are 3 micro-batches");
  s = right;
  s.actions[0][0].chunk = 1;
  EXPECT_EQ(Wrong(s),
            "rank 0, action 0, F0: chunk 1 is no stage of micro-batch 0");
  s = right;
  s.actions[0].push_back({ActionKind::kBackward, 1, 0});
  EXPECT_EQ(Wrong(s), "rank 0, action 5, I1: it is part of B1 already");
  s = right;
  std::swap(s.actions[1][0], s.actions[1][1]);
  EXPECT_EQ(Wrong(s), "rank 1, action 0, I0: its F0 comes later, as 1");
  // Down and back up: the last rank has two stages that follow one another.
  s = *BuildSchedule("zb_v", {2, 4, 1});
  std::swap(s.actions[1][0], s.actions[1][1]);
  EXPECT_EQ(Wrong(s), "rank 1, action 0, F0.1: its F0.0 comes later, as 1");
  s = right;
  s.pipelines[0][1] = {0, 0};
  EXPECT_EQ(Wrong(s), "chunk 0 of rank 0 is stage 0 and stage 1");
  s = right;
  s.pipelines[0][1] = {2, 0};
  EXPECT_EQ(Wrong(s), "stage 1 of pipeline 0 is on no rank");
}

TEST(Validator, FindsRanksThatWaitForOneAnother) {
  // Rank 0 does the backward pass of 1 first, rank 1 that of 0.
  Schedule s = *BuildSchedule("gpipe", {2, 2, 1});
  std::swap(s.actions[0][2], s.actions[0][3]);
  EXPECT_EQ(Wrong(s), "");
  EXPECT_EQ(ValidateSchedule(s, MessageSemantics::kGrouped).message(),
            "rank 0 receives B1 from rank 1, which sends B0 to rank 0: a "
            "deadlock (grouped messages)");
  // Rank 1 wants what rank 0 makes of what rank 1 has not sent.
  s = *BuildSchedule("naive", {2, 2, 1});
  std::swap(s.actions[1][1], s.actions[1][2]);
  EXPECT_EQ(Wrong(s),
            "rank 0 receives B0 from rank 1, which receives F1 from rank 0: a "
            "deadlock (buffered messages)");
}

// Two actions of a random rank change places, or one is lost, or comes twice, or
// is another: what is accepted runs to its end in the simulator, and what is
// refused for a deadlock does not.
TEST(Validator, AgreesWithTheSimulatorOnBrokenSchedules) {
  std::mt19937_64 random(7);
  const auto below = [&](size_t n) { return random() % n; };
  int accepted = 0, refused = 0;
  for (int round = 0; round < 4000; ++round) {
    const ScheduleInfo& info = Schedules()[below(Schedules().size())];
    const int p = 2 + static_cast<int>(below(3));
    auto built = BuildSchedule(
        info.name,
        {p, 2 * p, info.takes_chunks ? 1 + static_cast<int>(below(2)) : 1});
    if (!built.ok()) continue;  // For an even number of ranks only.
    Schedule& s = *built;
    std::vector<Action>& actions = s.actions[below(s.actions.size())];
    const size_t i = below(actions.size()), j = below(actions.size());
    switch (below(4)) {
      case 0:
        actions.erase(actions.begin() + static_cast<ptrdiff_t>(i));
        break;
      case 1:
        actions.insert(actions.begin() + static_cast<ptrdiff_t>(i), actions[j]);
        break;
      case 2:
        actions[i].micro_batch = static_cast<int>(below(2 * p));
        break;
      default:
        std::swap(actions[i], actions[j]);
    }
    const Status valid = ValidateSchedule(s, MessageSemantics::kBuffered);
    const auto simulated = Simulate(s, {});
    if (valid.ok()) {
      ++accepted;
      EXPECT_TRUE(simulated.ok()) << simulated.status().ToString();
      continue;
    }
    ++refused;
    if (valid.message().find("deadlock") != std::string::npos) {
      EXPECT_FALSE(simulated.ok()) << valid.ToString();
    }
  }
  EXPECT_GT(accepted, 200);
  EXPECT_GT(refused, 2000);
}

// --- Simulator ---------------------------------------------------------------

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

// --- CSV and drawings --------------------------------------------------------

TEST(ScheduleCsv, ThereAndBackAgain) {
  for (const ScheduleInfo& info : Schedules()) {
    const Schedule s =
        *BuildSchedule(info.name, {4, 8, info.takes_chunks ? 2 : 1});
    const auto text = ToCsv(s);
    if (s.pipelines.size() > 1) {
      EXPECT_EQ(text.status().message(),
                s.name + " has 2 pipelines; such a table has one");
      continue;
    }
    ASSERT_TRUE(text.ok()) << text.status().ToString();
    const auto back = FromCsv(*text, s.name);
    ASSERT_TRUE(back.ok()) << back.status().ToString();
    EXPECT_EQ(back->actions, s.actions);
    EXPECT_EQ(back->pipelines, s.pipelines);
    EXPECT_EQ(back->micro_batches, s.micro_batches);
  }
}

TEST(ScheduleCsv, ReadsWhatOthersWrite) {
  const auto s = FromCsv("0F0, 0F1,,0B0,0B1\r\n,1F0,1B0,1F1,1B1\r\n\r\n", "x");
  ASSERT_TRUE(s.ok()) << s.status().ToString();
  EXPECT_EQ(s->ranks(), 2);
  EXPECT_EQ(s->micro_batches, 2);
  EXPECT_EQ(s->actions[0].size(), 4U);
  EXPECT_TRUE(ValidateSchedule(*s, MessageSemantics::kBuffered).ok());
}

TEST(ScheduleCsv, RefusesWhatIsNone) {
  const auto refusal = [](const char* text) {
    const auto s = FromCsv(text, "x");
    EXPECT_EQ(s.status().code(), StatusCode::kDataLoss);
    return std::string(s.status().message());
  };
  EXPECT_EQ(refusal("0F0,0X1\n"),
            "line 1, cell 2: \"0X1\" is no stage, one of F, B, I, W, and "
            "micro-batch");
  EXPECT_EQ(refusal("0F0\n1F-1"),
            "line 2, cell 1: \"1F-1\" is no stage, one of F, B, I, W, and "
            "micro-batch");
  EXPECT_EQ(refusal("0F99999999999"),
            "line 1, cell 1: \"0F99999999999\" is no stage, one of F, B, I, W, "
            "and micro-batch");
  EXPECT_EQ(refusal("0F0,0B0\n0F1\n"), "line 2: stage 0 is on line 1 already");
  EXPECT_EQ(refusal("0F0\n2F0\n"), "stage 1 is on no line");
  EXPECT_EQ(refusal(""), "there is no action");
  EXPECT_EQ(refusal(",,\n,\n"), "there is no action");
}

TEST(Drawing, IsWhatIsDrawn) {
  const Schedule s = *BuildSchedule("one_f_one_b", {2, 2, 1});
  const auto simulated = Simulate(s, {});
  ASSERT_TRUE(simulated.ok());
  EXPECT_EQ(DrawText(s, *simulated),
            "rank 0   F0 F1 .  .  B0    .  B1\n"
            "rank 1   .  F0 B0    F1 B1    .  .\n");
  const std::string svg = DrawSvg(s, *simulated);
  size_t boxes = 0;
  for (size_t at = svg.find("<title>"); at != std::string::npos;
       at = svg.find("<title>", at + 1)) {
    ++boxes;
  }
  EXPECT_EQ(boxes, 8U);
  Schedule hostile = s;
  hostile.name = "<script>\"&";
  EXPECT_NE(DrawSvg(hostile, *simulated).find("&lt;script&gt;&quot;&amp;:"),
            std::string::npos);
}

}  // namespace
}  // namespace shardproof
