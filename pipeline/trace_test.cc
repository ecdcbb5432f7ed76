// Traces, read again: a lane for each rank, a slice for each action where it was
// in time.
#include "pipeline/trace.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstdint>
#include <map>
#include <nlohmann/json.hpp>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "pipeline/registry.h"
#include "pipeline/simulator.h"

namespace shardproof {
namespace {

using Json = nlohmann::json;

// Twice as slow as predicted, and a second later.
std::vector<std::vector<TimeSpan>> Measured(const Simulation& s) {
  std::vector<std::vector<TimeSpan>> times = s.times;
  for (std::vector<TimeSpan>& rank : times) {
    for (TimeSpan& t : rank) t = {1 + t.start * 2e-3, 1 + t.end * 2e-3};
  }
  return times;
}

TEST(ChromeTrace, HasEveryActionWhereItIs) {
  for (const ScheduleInfo& info : Schedules()) {
    SCOPED_TRACE(info.name);
    const Schedule s =
        *BuildSchedule(info.name, {4, 8, info.takes_chunks ? 2 : 1});
    const auto simulated = Simulate(s, {.forward = 2});
    ASSERT_TRUE(simulated.ok());
    const std::vector<TraceProcess> processes = {
        {.name = "predicted", .times = simulated->times, .seconds = 1e-3},
        {.name = "measured", .times = Measured(*simulated)}};
    const auto text = ChromeTrace(s, processes);
    ASSERT_TRUE(text.ok()) << text.status().ToString();
    const Json trace = Json::parse(*text);
    EXPECT_EQ(trace["otherData"]["schedule"], info.name);
    EXPECT_EQ(trace["otherData"]["stages"], s.stages());
    std::map<std::pair<int, int>, size_t> slices;  // Of each lane, so far.
    for (const Json& event : trace["traceEvents"]) {
      if (event["ph"] == "M") continue;
      ASSERT_EQ(event["ph"], "X");
      const int pid = event["pid"], tid = event["tid"];
      ASSERT_TRUE(pid == 1 || pid == 2);
      ASSERT_TRUE(tid >= 1 && tid <= 4);
      const int rank = tid - 1;
      const size_t i = slices[{pid, tid}]++;
      ASSERT_LT(i, s.actions[static_cast<size_t>(rank)].size());
      const Action& action = s.actions[static_cast<size_t>(rank)][i];
      EXPECT_EQ(event["name"], s.Text(action));
      EXPECT_EQ(event["args"]["micro_batch"], action.micro_batch);
      EXPECT_EQ(event["args"]["chunk"], action.chunk);
      EXPECT_EQ(event["args"]["kind"], std::string(1, Letter(action.kind)));
      EXPECT_EQ(s.PlaceOf(action.micro_batch, event["args"]["stage"]),
                (Place{rank, action.chunk}));
      EXPECT_EQ(event["args"].contains("pipeline"), s.pipelines.size() == 2);
      EXPECT_EQ(event["args"].contains("with"), action.with_next);
      // In microseconds.
      const TimeSpan& time = simulated->times[static_cast<size_t>(rank)][i];
      const double unit = pid == 1 ? 1e3 : 2e3, begins = pid == 1 ? 0 : 1e6;
      EXPECT_NEAR(event["ts"], begins + time.start * unit, 1.0 / 16);
      EXPECT_NEAR(event["dur"], (time.end - time.start) * unit, 1.0 / 8);
    }
    ASSERT_EQ(slices.size(), 8U);
    for (const auto& [lane, count] : slices) {
      EXPECT_EQ(count, s.actions[static_cast<size_t>(lane.second - 1)].size());
    }
  }
}

TEST(ChromeTrace, NamesAndSortsProcessesAndLanes) {
  const Schedule s = *BuildSchedule("gpipe", {3, 2});
  const auto simulated = Simulate(s, {});
  const Json trace = Json::parse(
      *ChromeTrace(s, {{.name = "predicted", .times = simulated->times},
                       {.name = "measured", .times = simulated->times}}));
  std::map<std::pair<int, int>, std::string> names;
  std::map<std::pair<int, int>, int> order;
  for (const Json& event : trace["traceEvents"]) {
    if (event["ph"] != "M") continue;
    const std::string name = event["name"];
    const std::pair<int, int> lane = {event["pid"], event["tid"]};
    EXPECT_EQ(name.find(lane.second == 0 ? "process_" : "thread_"), 0U);
    if (name.ends_with("_name")) {
      names[lane] = event["args"]["name"];
    } else {
      EXPECT_TRUE(name.ends_with("_sort_index"));
      order[lane] = event["args"]["sort_index"];
    }
  }
  const std::map<std::pair<int, int>, std::string> expected = {
      {{1, 0}, "predicted"}, {{1, 1}, "rank 0"},   {{1, 2}, "rank 1"},
      {{1, 3}, "rank 2"},    {{2, 0}, "measured"}, {{2, 1}, "rank 0"},
      {{2, 2}, "rank 1"},    {{2, 3}, "rank 2"}};
  EXPECT_EQ(names, expected);
  ASSERT_EQ(order.size(), names.size());
  EXPECT_LT((order[{1, 0}]), (order[{2, 0}]));
  for (const int pid : {1, 2}) {
    EXPECT_LT((order[{pid, 1}]), (order[{pid, 2}]));
    EXPECT_LT((order[{pid, 2}]), (order[{pid, 3}]));
  }
}

TEST(ChromeTrace, RefusesTimesThatAreNotTheSchedules) {
  const Schedule s = *BuildSchedule("gpipe", {2, 2});
  const auto simulated = Simulate(s, {});
  const auto refusal = [&](const std::vector<std::vector<TimeSpan>>& times) {
    const auto trace = ChromeTrace(s, {{.name = "measured", .times = times}});
    EXPECT_EQ(trace.status().code(), StatusCode::kInvalidArgument);
    return std::string(trace.status().message());
  };
  auto times = simulated->times;
  times[1].pop_back();
  EXPECT_EQ(refusal(times), "measured: rank 1 has 3 times for 4 actions");
  times.pop_back();
  EXPECT_EQ(refusal(times),
            "measured: times of 1 ranks, and the schedule has 2");
  times = simulated->times;
  times[0][1] = {2, 1};
  EXPECT_EQ(refusal(times), "measured: rank 0, action 1, F1: from 2 to 1");
  times[0][1] = {0, std::nan("")};
  EXPECT_EQ(refusal(times), "measured: rank 0, action 1, F1: from 0 to nan");
}

// As viewers read times: whole nanoseconds, rounded or cut off.
TEST(ChromeTrace, SlicesOfALaneDoNotOverlapInNanoseconds) {
  for (const ScheduleInfo& info : Schedules()) {
    SCOPED_TRACE(info.name);
    const Schedule s =
        *BuildSchedule(info.name, {4, 8, info.takes_chunks ? 2 : 1});
    const auto simulated =
        Simulate(s, {.forward = 0.1, .input = 0.7 / 3, .weight = 0.3});
    const Json trace = Json::parse(
        *ChromeTrace(s, {{.name = "predicted", .times = simulated->times},
                         {.name = "measured",
                          .times = simulated->times,
                          .seconds = 1e-4 / 3}}));
    for (const bool round : {false, true}) {
      const auto nanoseconds = [&](double microseconds) {
        const double n = microseconds * 1000;
        return static_cast<int64_t>(round ? std::llround(n) : std::trunc(n));
      };
      std::map<std::pair<int, int>, int64_t> ends;
      for (const Json& event : trace["traceEvents"]) {
        if (event["ph"] != "X") continue;
        int64_t& end = ends[{event["pid"], event["tid"]}];
        const int64_t begin = nanoseconds(event["ts"]);
        ASSERT_GE(begin, end) << event;
        end = begin + nanoseconds(event["dur"]);
      }
      EXPECT_EQ(ends.size(), 8U);
    }
  }
}

// JSON is UTF-8.
TEST(ChromeTrace, ReplacesWhatIsNoText) {
  Schedule s = *BuildSchedule("gpipe", {2, 2});
  s.name = "a\xff\"b";
  const Json trace = Json::parse(
      *ChromeTrace(s, {{.name = "x", .times = Simulate(s, {})->times}}));
  EXPECT_EQ(trace["otherData"]["schedule"], "a\xef\xbf\xbd\"b");
}

}  // namespace
}  // namespace shardproof
