// Tables of values: there and back, those of others, and what is none.
#include "pipeline/schedule_csv.h"

#include <gtest/gtest.h>

#include <cstddef>
#include <string>
#include <vector>

#include "pipeline/registry.h"
#include "pipeline/validator.h"

namespace shardproof {
namespace {

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
  const auto pair = FromCsv("0F0,0F1,( 0F2; 0B0 )OVERLAP_F_B ,0B1,0B2\n", "x");
  ASSERT_TRUE(pair.ok()) << pair.status().ToString();
  EXPECT_EQ(pair->actions[0][2],
            (Action{ActionKind::kForward, 2, 0, /*with_next=*/true}));
  EXPECT_EQ(*ToCsv(*pair), "0F0,0F1,(0F2;0B0)OVERLAP_F_B,0B1,0B2\n");
}

// Ranks that have nothing to do are there; blank lines at the end are not.
TEST(ScheduleCsv, KeepsRanksWithoutActions) {
  const auto s = FromCsv("\n0F0\n\n1F0\n,\n", "x");
  ASSERT_TRUE(s.ok()) << s.status().ToString();
  EXPECT_EQ(s->ranks(), 5);
  EXPECT_EQ(*ToCsv(*s), ",\n0F0\n,\n1F0\n,\n");
  EXPECT_EQ(FromCsv(*ToCsv(*s), "x")->actions, s->actions);
  EXPECT_EQ(FromCsv("0F0\n1F0\n\n \r\n\n", "x")->ranks(), 2);
}

// A table without one of its actions, whichever it is, says which.
TEST(ScheduleCsv, NamesTheActionThatIsMissing) {
  for (const char* name : {"one_f_one_b", "zb_h1", "zb_v"}) {
    const Schedule whole = *BuildSchedule(name, {3, 6, 1});
    for (int rank = 0; rank < whole.ranks(); ++rank) {
      const size_t count = whole.actions[static_cast<size_t>(rank)].size();
      for (size_t i = 0; i < count; ++i) {
        Schedule part = whole;
        std::vector<Action>& actions = part.actions[static_cast<size_t>(rank)];
        const Action missing = actions[i];
        actions.erase(actions.begin() + static_cast<ptrdiff_t>(i));
        const auto read = FromCsv(*ToCsv(part), name);
        ASSERT_TRUE(read.ok()) << read.status().ToString();
        EXPECT_EQ(
            ValidateSchedule(*read, MessageSemantics::kBuffered).message(),
            "rank " + std::to_string(rank) + " never does " +
                whole.Text(missing) + ", of stage " +
                std::to_string(
                    whole.StageAt(missing.micro_batch, {rank, missing.chunk})));
      }
    }
  }
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
  EXPECT_EQ(refusal("0F0,(0F1;0B0)OVERLAP"),
            "line 1, cell 2: \"(0F1;0B0)OVERLAP\" is no pair of actions, "
            "(0F1;1B0)OVERLAP_F_B");
  for (const char* cell : {"(0F1)OVERLAP_F_B", "(0F1;0B0", "()OVERLAP_F_B",
                           "(0F1;0B0;0F2)OVERLAP_F_B", ")0F1;0B0(OVERLAP_F_B",
                           "(;)OVERLAP_F_B", "(0F1;)0B0OVERLAP_F_B"}) {
    EXPECT_NE(refusal(cell).find("is no "), std::string::npos) << cell;
  }
  EXPECT_EQ(refusal("0F0,0B0\n0F1\n"), "line 2: stage 0 is on line 1 already");
  EXPECT_EQ(refusal("0F0\n2F0\n"), "stage 1 is on no line");
  EXPECT_EQ(refusal(""), "there is no action");
  EXPECT_EQ(refusal(",,\n,\n"), "there is no action");
}

}  // namespace
}  // namespace shardproof
