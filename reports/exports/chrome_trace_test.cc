#include "reports/exports/chrome_trace.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <vector>

#include "reports/exports/testing/sample_reports.h"

namespace shardproof {
namespace {

using Json = nlohmann::json;

std::vector<Json> Samples(const Json& trace) {
  std::vector<Json> samples;
  for (const Json& event : trace["traceEvents"]) {
    if (event["ph"] == "X") samples.push_back(event);
  }
  return samples;
}

TEST(ChromeTrace, RanksStartASampleTogether) {
  const Json trace = Json::parse(ChromeTrace(TypicalReport()));
  const auto samples = Samples(trace);
  ASSERT_EQ(samples.size(), 12U);  // Two records, two ranks, three samples.
  // 100 and 99, then 99 and 101, then 98 and 99.
  const std::vector<double> starts = {0, 0, 100, 100, 201, 201};
  const std::vector<double> widths = {100, 99, 99, 101, 98, 99};
  for (size_t i = 0; i < 6; ++i) {
    EXPECT_EQ(samples[i]["ts"], starts[i]) << i;
    EXPECT_EQ(samples[i]["dur"], widths[i]) << i;
    EXPECT_EQ(samples[i]["tid"], i % 2);
    EXPECT_EQ(samples[i]["pid"], 0);
    EXPECT_EQ(samples[i + 6]["pid"], 1);
  }
  EXPECT_EQ(trace["traceEvents"][0]["args"]["name"],
            "results.json: collectives/all_reduce ring thread 2 dtype=f32 "
            "count=1024");
  EXPECT_EQ(trace["otherData"]["left_out"], 0);
}

TEST(ChromeTrace, WithoutRanksTheSlowest) {
  Report report = TypicalReport();
  report.launches[0].records.resize(1);
  report.launches[0].records[0].time_us->rank_samples_us.clear();
  const Json trace = Json::parse(ChromeTrace(report));
  EXPECT_EQ(Samples(trace).size(), 3U);
  EXPECT_EQ(trace["traceEvents"][1]["args"]["name"], "slowest rank");
}

TEST(ChromeTrace, SaysWhatDoesNotFit) {
  Report report;
  Record r{.case_name = "c", .variant = "v", .backend = "b"};
  r.time_us =
      Record::Time{.rank_samples_us = {8, std::vector<double>(48, 1.0)}};
  // 8 * 48 samples and 9 names each: 508 of them fit.
  report.launches.emplace_back().records.assign(600, r);
  const Json trace = Json::parse(ChromeTrace(report));
  EXPECT_LE(trace["traceEvents"].size(), static_cast<size_t>(kTraceEvents));
  EXPECT_EQ(trace["otherData"]["left_out"], 600 - kTraceEvents / (8 * 48 + 9));
  EXPECT_TRUE(Json::parse(ChromeTrace({}))["traceEvents"].empty());
}

}  // namespace
}  // namespace shardproof
