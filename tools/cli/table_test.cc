#include "tools/cli/table.h"

#include <gtest/gtest.h>

#include <limits>
#include <string>

namespace shardproof {
namespace {

Record Of(const char* variant, Verdict verdict) {
  return {.case_name = "collectives/all_reduce",
          .variant = variant,
          .backend = "thread",
          .ranks = 4,
          .params = {{"count", "7"}},
          .verdict = verdict};
}

TEST(Table, NumbersToTheRightAndNoTrailingBlanks) {
  Table table({"name", "count"});
  table.Add({"a", "1"});
  table.Add({"long", "1000"});
  EXPECT_EQ(table.Text(), "name  count\na         1\nlong   1000\n");
}

TEST(Table, Units) {
  EXPECT_EQ(TimeText(0.25), "0.25 us");
  EXPECT_EQ(TimeText(1500), "1.50 ms");
  EXPECT_EQ(TimeText(2.5e6), "2.50 s");
  EXPECT_EQ(TimeText(std::numeric_limits<double>::quiet_NaN()), "-");
  EXPECT_EQ(BytesText(1023), "1023 B");
  EXPECT_EQ(BytesText(1 << 20), "1 MiB");
}

TEST(BenchTable, OnlyWhatPassedHasASpeed) {
  BenchTable table;
  Record slow = Of("native", Verdict::kPassed);
  slow.native = true;
  slow.time_us = Record::Time{.median = 30, .samples = 10};
  Record fast = Of("ring", Verdict::kPassed);
  fast.time_us = Record::Time{.median = 10, .samples = 10};
  Record wrong = Of("tree", Verdict::kIncorrect);
  wrong.time_us = Record::Time{.median = 1.5, .samples = 10};
  for (const Record& r : {slow, fast, wrong}) table.Add(r);
  const std::string text = table.Text();
  EXPECT_NE(text.find("3.00x"), std::string::npos) << text;
  EXPECT_EQ(text.find("1.50 us"), std::string::npos) << text;
  EXPECT_NE(text.find("incorrect"), std::string::npos) << text;
}

TEST(BenchTable, SaysWhatIsEmulated) {
  Record r = Of("native", Verdict::kPassed);
  r.time_us = Record::Time{.median = 30, .flags = {"wide interval"}};
  const auto last = [&r] {
    BenchTable table;
    table.Add(r);
    const std::string text = table.Text();
    return text.substr(text.find("passed"));
  };
  EXPECT_EQ(last(), "passed, noisy\n");
  r.emulated = true;
  EXPECT_EQ(last(), "passed, noisy, emulated\n");
  r.time_us->flags.clear();
  EXPECT_EQ(last(), "passed, emulated\n");
}

TEST(Summary, NamesFailuresWithTheirReproLine) {
  Summary summary;
  summary.Add(Of("ring", Verdict::kPassed));
  Record wrong = Of("tree", Verdict::kIncorrect);
  wrong.reason = "rank 3 is missing";
  wrong.repro = "shardproof verify --ranks 4";
  summary.Add(wrong);
  Record none = Of("native", Verdict::kUnsupported);
  none.reason = "no library";
  summary.Add(none);
  const std::string text = summary.Text();
  for (const char* part : {"rank 3 is missing", "shardproof verify --ranks 4",
                           "unsupported 1 times: no library",
                           "1 passed, 1 incorrect, 1 unsupported"}) {
    EXPECT_NE(text.find(part), std::string::npos) << text;
  }
  EXPECT_EQ(summary.count(Verdict::kIncorrect), 1);
}

}  // namespace
}  // namespace shardproof
