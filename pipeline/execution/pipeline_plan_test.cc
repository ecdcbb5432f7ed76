// Plans, followed by hand: every action finds what it needs where the plan says,
// nothing is written where something still lies, and nobody waits for ever, even
// where a send does not end before its receive has been started.
#include "pipeline/execution/pipeline_plan.h"

#include <gtest/gtest.h>

#include <map>
#include <random>
#include <string>
#include <tuple>
#include <vector>

#include "pipeline/registry.h"
#include "pipeline/testing/random_schedule.h"
#include "pipeline/validator.h"

namespace shardproof {
namespace {

// What lies in a buffer: the y, or the dx, of a stage; "" where it is free.
using Content = std::string;

class Followed {
 public:
  explicit Followed(const Schedule& s) : s_(s) {
    for (int rank = 0; rank < s.ranks(); ++rank) {
      Rank r;
      r.plan = PlanPipeline(s, rank);
      const auto buffers = static_cast<size_t>(r.plan.slots + r.plan.outputs);
      r.buffers.resize(buffers);
      ranks_.push_back(std::move(r));
    }
  }

  // What is wrong; "" if nothing.
  std::string ToTheEnd() {
    bool moved = true;
    while (moved && wrong_.empty()) {
      moved = false;
      for (size_t r = 0; r < ranks_.size() && wrong_.empty(); ++r) {
        while (ranks_[r].at < ranks_[r].plan.actions.size() && Try(r)) {
          moved = true;
        }
      }
    }
    for (const Rank& rank : ranks_) {
      if (!wrong_.empty()) return wrong_;
      if (rank.at < rank.plan.actions.size()) return "somebody waits for ever";
    }
    for (const auto& [key, message] : messages_) {
      if (!message.sent || !message.receiving) return "an end is missing";
    }
    return "";
  }

 private:
  struct Rank {
    PipelinePlan plan;
    std::vector<Content> buffers;
    size_t at = 0;
    bool entered = false;  // The receives of action `at` are started.
  };
  struct Message {
    bool sent = false, receiving = false;
    Content content;
  };
  using Key = std::tuple<int, int, int>;  // From, to, tag.

  static Content Of(bool forward, int m, int stage) {
    return (forward ? "y" : "dx") + std::to_string(m) + "." +
           std::to_string(stage);
  }
  Message& Received(size_t r, int number) {
    const PipelineMessage& m =
        ranks_[r].plan.receives[static_cast<size_t>(number)];
    return messages_[{m.peer, static_cast<int>(r), m.tag}];
  }
  Message& Sent(size_t r, int number) {
    const PipelineMessage& m =
        ranks_[r].plan.sends[static_cast<size_t>(number)];
    return messages_[{static_cast<int>(r), m.peer, m.tag}];
  }

  void Fill(size_t r, int buffer, Content content) {
    Content& place = ranks_[r].buffers.at(static_cast<size_t>(buffer));
    if (!place.empty()) wrong_ = content + " is written over " + place;
    place = std::move(content);
  }
  void Read(size_t r, int buffer, bool forward, int m, int stage) {
    const bool there = stage >= 0 && stage < s_.stages();
    if (!there && buffer >= 0) wrong_ = "an address for nothing";
    if (!there) return;
    const Content wanted = Of(forward, m, stage);
    if (buffer < 0 ||
        ranks_[r].buffers.at(static_cast<size_t>(buffer)) != wanted) {
      wrong_ = wanted + " is not there";
    }
  }
  void Free(size_t r, int buffer) {
    if (buffer >= 0) ranks_[r].buffers.at(static_cast<size_t>(buffer)).clear();
  }

  void Enter(size_t r, const PlannedAction& a) {
    if (ranks_[r].entered) return;
    ranks_[r].entered = true;
    for (const int number : a.receives) {
      Received(r, number).receiving = true;
      Fill(r, ranks_[r].plan.receives[static_cast<size_t>(number)].buffer,
           "a receive");
    }
  }

  bool Try(size_t r) {
    Rank& rank = ranks_[r];
    const PlannedAction& a = rank.plan.actions[rank.at];
    Enter(r, a);
    if (a.frees >= 0) {
      if (!Sent(r, a.frees).receiving) return false;
      Free(r, rank.plan.sends[static_cast<size_t>(a.frees)].buffer);
    }
    if (a.arrives >= 0) {
      const Message& message = Received(r, a.arrives);
      if (!message.sent) return false;
      rank.buffers.at(static_cast<size_t>(
          rank.plan.receives[static_cast<size_t>(a.arrives)].buffer)) =
          message.content;
    }
    Do(r, a);
    ++rank.at;
    rank.entered = false;
    return true;
  }

  void Do(size_t r, const PlannedAction& a) {
    const int m = a.action.micro_batch, s = a.stage;
    const bool forward = a.action.kind == ActionKind::kForward;
    const bool weight = a.action.kind == ActionKind::kWeight;
    Read(r, a.x, true, m, s - 1);
    if (!forward) Read(r, a.dy, false, m, s + 1);
    const int target = forward ? s + 1 : s - 1;
    const int made = forward ? a.y : a.dx;
    const bool makes = !weight && target >= 0 && target < s_.stages();
    if (makes != (made >= 0)) wrong_ = "an output for nothing, or none";
    if (makes && made >= 0) Fill(r, made, Of(forward, m, s));
    if (a.leaves >= 0) {
      Message& message = Sent(r, a.leaves);
      if (message.sent) wrong_ = "two messages with a tag";
      message.sent = true;
      message.content = Of(forward, m, s);
    }
    if (weight || a.action.kind == ActionKind::kBackward) {
      Free(r, a.x);
      Free(r, a.dy);
    }
  }

  const Schedule& s_;
  std::vector<Rank> ranks_;
  std::map<Key, Message> messages_;
  std::string wrong_;
};

TEST(PipelinePlan, IsRightForEverySchedule) {
  for (const ScheduleInfo& info : Schedules()) {
    int built = 0;
    for (int p = 1; p <= 9; ++p) {
      for (int m = 1; m <= 3 * p; ++m) {
        for (int v = 1; v <= (info.takes_chunks ? 3 : 1); ++v) {
          const auto s = BuildSchedule(info.name, {p, m, v});
          if (!s.ok()) continue;
          ++built;
          ASSERT_EQ(Followed(*s).ToTheEnd(), "")
              << info.name << " " << p << " ranks " << m << " micro-batches "
              << v << " chunks";
        }
      }
    }
    // Two pipelines take even numbers only.
    EXPECT_GT(built, 10) << info.name;
  }
}

TEST(PipelinePlan, IsRightForAnythingThatIsValid) {
  std::mt19937_64 random(11);
  int broken_but_valid = 0;
  for (int round = 0; round < 3000; ++round) {
    Schedule s = RandomSchedule(random, 6);
    ASSERT_TRUE(ValidateSchedule(s, MessageSemantics::kBuffered).ok());
    ASSERT_EQ(Followed(s).ToTheEnd(), "") << round;
    BreakAtRandom(random, s);
    if (!ValidateSchedule(s, MessageSemantics::kBuffered).ok()) continue;
    ++broken_but_valid;
    ASSERT_EQ(Followed(s).ToTheEnd(), "") << round << ", broken";
  }
  EXPECT_GT(broken_but_valid, 300);
}

TEST(PipelinePlan, ReceivesAsSoonAsASlotIsFree) {
  // GPipe keeps all x: all receives of x are started at once.
  const PipelinePlan gpipe =
      PlanPipeline(*BuildSchedule("gpipe", {3, 4, 1}), 1);
  EXPECT_EQ(gpipe.slots, 5);  // 4 x, and a dy.
  EXPECT_EQ(gpipe.actions[0].receives, (std::vector<int>{0, 1, 2, 3, 4}));
  // The last rank of 1F1B keeps one.
  const PipelinePlan last =
      PlanPipeline(*BuildSchedule("one_f_one_b", {3, 4, 1}), 2);
  EXPECT_EQ(last.slots, 1);
  for (size_t i = 0; i < last.actions.size(); ++i) {
    const bool forward = last.actions[i].action.kind == ActionKind::kForward;
    EXPECT_EQ(last.actions[i].receives.size(), forward ? 1U : 0U);
  }
}

TEST(PipelinePlan, HasFewOutputs) {
  // However many micro-batches there are.
  for (const ScheduleInfo& info : Schedules()) {
    const Schedule s = *BuildSchedule(info.name, {4, 32, 1});
    for (int rank = 0; rank < 4; ++rank) {
      const PipelinePlan plan = PlanPipeline(s, rank);
      EXPECT_GT(plan.sends.size(), 31U);
      EXPECT_LE(plan.outputs, 8) << info.name << " rank " << rank;
    }
  }
}

TEST(SlotsOfChunks, AreThoseOfTheFormulas) {
  for (int rank = 0; rank < 4; ++rank) {
    const auto slots = [&](const char* name, const ScheduleShape& shape) {
      return SlotsOfChunks(*BuildSchedule(name, shape), rank);
    };
    EXPECT_EQ(slots("naive", {4, 8, 1}), std::vector<int>{1});
    EXPECT_EQ(slots("gpipe", {4, 8, 1}), std::vector<int>{8});
    EXPECT_EQ(slots("one_f_one_b", {4, 8, 1}), std::vector<int>{4 - rank});
    EXPECT_EQ(slots("zb_h1", {4, 8, 1}), std::vector<int>{4});
    EXPECT_EQ(slots("breadth_first", {4, 8, 3}), (std::vector<int>{8, 8, 8}));
  }
}

}  // namespace
}  // namespace shardproof
