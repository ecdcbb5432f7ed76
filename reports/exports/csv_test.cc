#include "reports/exports/csv.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "reports/exports/testing/sample_reports.h"

namespace shardproof {
namespace {

std::vector<std::string> Lines(const std::string& text) {
  std::vector<std::string> lines;
  size_t begin = 0;
  for (size_t end = text.find("\r\n"); end != std::string::npos;
       end = text.find("\r\n", begin)) {
    lines.push_back(text.substr(begin, end - begin));
    begin = end + 2;
  }
  EXPECT_EQ(begin, text.size());
  return lines;
}

Report Of(Record record) {
  Report report;
  Launch& launch = report.launches.emplace_back();
  launch.name = "a.json";
  launch.records = {std::move(record)};
  return report;
}

TEST(Csv, OneLineByHand) {
  Record r{.case_name = "c",
           .variant = "v",
           .backend = "thread",
           .ranks = 2,
           .params = {{"count", "7"}},
           .verdict = Verdict::kPassed};
  r.time_us = Record::Time{.median = 1.5, .samples = 3};
  r.busbw_gbps = 0.25;
  const auto lines = Lines(RecordsCsv(Of(r)));
  ASSERT_EQ(lines.size(), 2U);
  EXPECT_EQ(lines[0],
            "launch,started,host,label,case,variant,backend,ranks,memory,"
            "cadence,native,emulated,verdict,reason,median_us,interval_low_us,"
            "interval_high_us,p10_us,p90_us,min_us,max_us,samples,"
            "operations_per_sample,algbw_gbps,busbw_gbps,gflops,predicted_us,"
            "floor_us,tier,worst_ratio,max_abs,max_ulp,bytes,messages,key,"
            "repro,param_count");
  EXPECT_EQ(lines[1],
            "a.json,,,,c,v,thread,2,shared,isolated,false,false,passed,,1.5,0,"
            "0,0,0,0,0,3,1,,0.25,,,,,,,,,,c v thread 2 count=7,,7");
}

// The cell of the reason, as it is written.
std::string Reason(const std::string& reason) {
  const std::string text = RecordsCsv(
      Of({.case_name = "c", .variant = "v", .backend = "b", .reason = reason}));
  const size_t begin = text.find(",failed,") + 8;
  return text.substr(begin, text.find(",,,,,,,,,,,,,,", begin) - begin);
}

TEST(Csv, QuotesWhatEndsACell) {
  EXPECT_EQ(Reason("plain; text"), "plain; text");
  EXPECT_EQ(Reason("a,b"), "\"a,b\"");
  EXPECT_EQ(Reason("say \"no\""), "\"say \"\"no\"\"\"");
  EXPECT_EQ(Reason("two\nlines"), "\"two\nlines\"");
}

TEST(Csv, FormulasAreText) {
  for (const std::string start : {"=", "+", "-", "@"}) {
    EXPECT_EQ(Reason(start + "SUM(A1)"), "'" + start + "SUM(A1)");
  }
  EXPECT_EQ(Reason("\t=1"), "'\t=1");
  EXPECT_EQ(Reason("\r=1"), "\"'\r=1\"");
  EXPECT_EQ(Reason("=HYPERLINK(\"http://x\",\"y\")"),
            "\"'=HYPERLINK(\"\"http://x\"\",\"\"y\"\")\"");
  EXPECT_EQ(Reason("-12.5"), "-12.5");  // A number.
  EXPECT_EQ(Reason("-12.5+1"), "'-12.5+1");
  EXPECT_EQ(Reason("a=1"), "a=1");
}

TEST(Csv, ParametersAreColumns) {
  Report report = TypicalReport();
  const auto lines = Lines(RecordsCsv(report));
  ASSERT_EQ(lines.size(), 9U);
  EXPECT_TRUE(lines[0].ends_with(",param_dtype,param_count,param_rows"));
  EXPECT_TRUE(lines[1].ends_with(",f32,1024,")) << lines[1];
  EXPECT_TRUE(lines[3].ends_with(",,,7")) << lines[3];
}

TEST(Csv, Comparisons) {
  const auto lines = Lines(ComparisonsCsv(TypicalReport()));
  ASSERT_EQ(lines.size(), 8U);
  EXPECT_TRUE(lines[2].starts_with(
      "collectives/all_reduce tree thread 2,collectives/all_reduce,tree,"
      "thread,,2,regressed,because of tree,100,107,0.07,"))
      << lines[2];
  EXPECT_EQ(Lines(ComparisonsCsv({})).size(), 1U);
}

}  // namespace
}  // namespace shardproof
