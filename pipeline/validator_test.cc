// What the validator makes of broken schedules.
#include "pipeline/validator.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <string>
#include <vector>

#include "pipeline/registry.h"
#include "pipeline/simulator.h"

namespace shardproof {
namespace {

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
  EXPECT_EQ(Wrong(s), "rank 0, action 9, B1: action 5 was part of it");
  s.actions[0].pop_back();
  s.actions[1].insert(s.actions[1].begin() + 1,
                      Action{ActionKind::kBackward, 0, 0});
  EXPECT_EQ(Wrong(s), "rank 1, action 2, I0: it was part of action 1");

  s = right;
  std::swap(s.actions[1][0], s.actions[1][1]);
  EXPECT_EQ(Wrong(s), "rank 1, action 0, I0: its F0 comes later, as 1");
  // Down and back up: the last rank has two stages that follow one another.
  s = *BuildSchedule("zb_v", {2, 4, 1});
  std::swap(s.actions[1][0], s.actions[1][1]);
  EXPECT_EQ(Wrong(s), "rank 1, action 0, F0.1: its F0.0 comes later, as 1");
  s = *BuildSchedule("dualpipe_v", {2, 6, 1});
  const auto pair = std::find_if(s.actions[0].begin(), s.actions[0].end(),
                                 [](const Action& a) { return a.with_next; });
  ASSERT_EQ(s.Text(*pair), "F3.0");
  ASSERT_EQ(pair - s.actions[0].begin(), 7);
  pair[-1].with_next = true;
  EXPECT_EQ(Wrong(s),
            "rank 0, action 6, F1.1: it and F3.0 are no F and B of two "
            "micro-batches, which can be a pair");
  pair[-1].with_next = false;
  pair[1].with_next = true;
  EXPECT_EQ(Wrong(s),
            "rank 0, action 7, F3.0: it and B1.1 are no F and B of two "
            "micro-batches, which can be a pair");
  s = *BuildSchedule("naive", {2, 1, 1});
  s.actions[1][0].with_next = true;
  EXPECT_EQ(Wrong(s),
            "rank 1, action 0, F0: it and B0 are no F and B of two "
            "micro-batches, which can be a pair");
  s.actions[1][0].with_next = false;
  s.actions[1][1].with_next = true;
  EXPECT_EQ(Wrong(s), "rank 1, action 1, B0: a pair without a second");
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
  // Messages are named after what sends them: here a B to who does an I.
  s.actions[0][2].kind = s.actions[0][3].kind = ActionKind::kInput;
  s.actions[0].push_back({ActionKind::kWeight, 0, 0});
  s.actions[0].push_back({ActionKind::kWeight, 1, 0});
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

// Rank 0 can do B0 only when F1 has left, which rank 1 does first: they run one
// after the other, but not as a pair.
TEST(Validator, RefusesPairsThatWaitForThemselves) {
  Schedule s = *BuildSchedule("gpipe", {2, 2, 1});
  ASSERT_EQ(s.Text(s.actions[0][1]) + s.Text(s.actions[0][2]), "F1B0");
  s.actions[0][1].with_next = true;
  EXPECT_EQ(Wrong(s),
            "rank 0 receives B0 from rank 1, which receives F1 from rank 0: a "
            "deadlock (buffered messages, in pairs)");
  EXPECT_EQ(Simulate(s, {.overlapped = 2}).status().message(),
            "rank 0 waits for ever in its action 1, F1");
  EXPECT_TRUE(Simulate(s, {}).ok());
  // 1F1B's first B comes from the first F.
  s = *BuildSchedule("eager_1f1b", {2, 3, 1});
  ASSERT_EQ(s.Text(s.actions[0][2]) + s.Text(s.actions[0][3]), "F2B0");
  s.actions[0][2].with_next = true;
  EXPECT_EQ(Wrong(s), "");
}

}  // namespace
}  // namespace shardproof
