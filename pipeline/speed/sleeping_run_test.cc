// Sleeping stages do what the schedule says, in its order, and each step is whole.
// How long anything took is not looked at.
#include "pipeline/speed/sleeping_run.h"

#include <gtest/gtest.h>

#include <cstddef>
#include <vector>

#include "pipeline/registry.h"

namespace shardproof {
namespace {

// When F, or B or I, of a stage was.
TimeSpan TimeOf(const Schedule& s, const ActionTimes& times, bool forward,
                int micro_batch, int stage) {
  const Place place = s.PlaceOf(micro_batch, stage);
  const auto rank = static_cast<size_t>(place.rank);
  for (size_t i = 0; i < times[rank].size(); ++i) {
    const Action& a = s.actions[rank][i];
    if (a.micro_batch != micro_batch || a.chunk != place.chunk) continue;
    if (a.kind == ActionKind::kWeight) continue;
    if ((a.kind == ActionKind::kForward) == forward) return times[rank][i];
  }
  ADD_FAILURE() << "stage " << stage << " of micro-batch " << micro_batch;
  return {};
}

TEST(SleepingRun, DoesEveryActionInOrder) {
  for (const ScheduleInfo& info : Schedules()) {
    SCOPED_TRACE(info.name);
    const Schedule s =
        *BuildSchedule(info.name, {2, 4, info.takes_chunks ? 2 : 1});
    const auto steps = RunSleeping(s, {.seconds = 1e-5, .steps = 2});
    ASSERT_TRUE(steps.ok()) << steps.status().message();
    ASSERT_EQ(steps->size(), 2U);
    for (const ActionTimes& times : *steps) {
      ASSERT_EQ(times.size(), s.actions.size());
      const TimeSpan span = SpanOf(times);
      for (size_t rank = 0; rank < times.size(); ++rank) {
        ASSERT_EQ(times[rank].size(), s.actions[rank].size());
        double end = span.start;
        for (const TimeSpan& t : times[rank]) {
          EXPECT_LE(end, t.start);
          EXPECT_LT(t.start, t.end);
          end = t.end;
        }
        EXPECT_LE(end, span.end);
      }
      // Nothing begins before what it needs has ended, on whichever rank.
      for (int m = 0; m < s.micro_batches; ++m) {
        for (int stage = 1; stage < s.stages(); ++stage) {
          EXPECT_LE(TimeOf(s, times, true, m, stage - 1).end,
                    TimeOf(s, times, true, m, stage).start);
          EXPECT_LE(TimeOf(s, times, false, m, stage).end,
                    TimeOf(s, times, false, m, stage - 1).start);
        }
      }
    }
    // One after the other.
    EXPECT_LT(SpanOf((*steps)[0]).end, SpanOf((*steps)[1]).start);
  }
}

TEST(SleepingRun, Spans) {
  EXPECT_EQ(SpanOf({{{2, 3}, {4, 9}}, {{1, 5}}}).start, 1);
  EXPECT_EQ(SpanOf({{{2, 3}, {4, 9}}, {{1, 5}}}).end, 9);
  const std::vector<ActionTimes> steps = {
      {{{0, 5}}}, {{{7, 8}}}, {{{10, 13}}}, {{{20, 29}}}, {{{30, 32}}}};
  EXPECT_EQ(MedianStep(steps)[0][0].start, 10);
}

TEST(SleepingRun, RefusesWhatDoesNotRun) {
  Schedule s = *BuildSchedule("gpipe", {2, 2});
  s.actions[1].pop_back();
  EXPECT_EQ(RunSleeping(s, {.steps = 1}).status().code(),
            StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace shardproof
