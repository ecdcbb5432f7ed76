// The form is exports_test's; here are the numbers.
#include "reports/exports/openmetrics.h"

#include <gtest/gtest.h>

#include <string>

#include "reports/exports/testing/sample_reports.h"

namespace shardproof {
namespace {

TEST(OpenMetrics, ByHand) {
  Report report;
  Launch& launch = report.launches.emplace_back();
  launch.name = "a\"b\\c\nd.json";
  Record r{.case_name = "c",
           .variant = "v",
           .backend = "thread",
           .ranks = 2,
           .params = {{"count", "7"}},
           .verdict = Verdict::kIncorrect};
  r.busbw_gbps = 2.5;
  launch.records = {r, r};  // The second has the same labels.
  const std::string labels =
      R"({launch="0",case="c",variant="v",backend="thread",ranks="2",)"
      R"(params="count=7",memory="shared",cadence="",emulated="false"})";
  EXPECT_EQ(
      OpenMetrics(report),
      "# TYPE shardproof_run info\n"
      "# HELP shardproof_run What each launch was.\n"
      "shardproof_run_info{launch=\"0\",file=\"a\\\"b\\\\c\\nd.json\","
      "started=\"\",host=\"\",cpu=\"\",mpi=\"\",cuda=\"\",nccl=\"\","
      "version=\"\",label=\"\"} 1\n"
      "# TYPE shardproof_passed gauge\n"
      "# HELP shardproof_passed 1 where the answer was right, 0 where it was "
      "not or where nobody knows.\n"
      "shardproof_passed" +
          labels +
          " 0\n"
          "# TYPE shardproof_busbw_bytes_per_second gauge\n"
          "# UNIT shardproof_busbw_bytes_per_second bytes_per_second\n"
          "# HELP shardproof_busbw_bytes_per_second Bandwidth that the slowest "
          "link had, as nccl-tests counts.\n"
          "shardproof_busbw_bytes_per_second" +
          labels + " 2500000000\n# EOF\n");
  EXPECT_EQ(OpenMetrics({}), "# EOF\n");
}

TEST(OpenMetrics, WhatDidNotRunHasNoSample) {
  const std::string text = OpenMetrics(TypicalReport());
  EXPECT_EQ(text.find("variant=\"device\""), std::string::npos);
  EXPECT_NE(text.find("variant=\"crashed\""), std::string::npos);
  EXPECT_NE(text.find("shardproof_gate_exit_code 1\n"), std::string::npos);
  EXPECT_NE(text.find("shardproof_gate_findings{quarantined=\"true\"} 2\n"),
            std::string::npos);
  EXPECT_NE(text.find("change=\"regressed\"} 1\n"), std::string::npos);
}

}  // namespace
}  // namespace shardproof
