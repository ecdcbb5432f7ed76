#include "reports/result_file.h"

#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <string>

namespace shardproof {
namespace {

namespace fs = std::filesystem;

class ResultFileTest : public ::testing::Test {
 protected:
  void SetUp() override {
    const char* base = std::getenv("TEST_TMPDIR");
    std::string folder =
        std::string(base != nullptr ? base : "/tmp") + "/result_file_XXXXXX";
    ASSERT_NE(mkdtemp(folder.data()), nullptr);
    folder_ = folder;
    path_ = (folder_ / "results.json").string();
  }
  void TearDown() override { fs::remove_all(folder_); }

  static Record Sample(int i) {
    return {.case_name = "collectives/all_reduce",
            .variant = "ring",
            .backend = "thread",
            .ranks = 4,
            .params = {{"count", std::to_string(i)}},
            .verdict = Verdict::kPassed};
  }
  static ResultHeader Header() {
    return {.command = "shardproof run \xff\"quoted\"", .started = "now"};
  }

  fs::path folder_;
  std::string path_;
};

TEST_F(ResultFileTest, IsCompleteJsonAfterEveryRecord) {
  auto file = ResultFile::Create(path_, Header());
  ASSERT_TRUE(file.ok()) << file.status().ToString();
  for (int i = 0; i < 5; ++i) {
    auto results = ReadResults(path_);
    ASSERT_TRUE(results.ok()) << results.status().ToString();
    EXPECT_EQ(results->records.size(), static_cast<size_t>(i));
    EXPECT_FALSE(results->complete);
    ASSERT_TRUE(file->Append(Sample(i)).ok());
  }
  ResultEnd end{.finished = "later", .left_out = {"a"}};
  end.sections["fits"] = {{{"variant", "ring"}}};
  end.sections["empty"] = nlohmann::ordered_json::array();
  ASSERT_TRUE(file->Finish(end).ok());
  auto results = ReadResults(path_);
  ASSERT_TRUE(results.ok()) << results.status().ToString();
  ASSERT_EQ(results->records.size(), 5u);
  EXPECT_EQ(results->records[3], Sample(3));
  EXPECT_TRUE(results->complete);
  EXPECT_EQ(results->header["left_out"][0], "a");
  EXPECT_EQ(results->header["fits"][0]["variant"], "ring");
  EXPECT_TRUE(results->header["empty"].empty());
}

TEST_F(ResultFileTest, SurvivesKillInTheMiddle) {
  const pid_t child = fork();
  ASSERT_GE(child, 0);
  if (child == 0) {
    auto file = ResultFile::Create(path_, Header());
    for (int i = 0; file.ok() && file->Append(Sample(i)).ok(); ++i) {
    }
    _exit(1);
  }
  while (!fs::exists(path_) || fs::file_size(path_) < 20000) usleep(200);
  kill(child, SIGKILL);
  int status = 0;
  ASSERT_EQ(waitpid(child, &status, 0), child);
  ASSERT_TRUE(WIFSIGNALED(status));
  auto results = ReadResults(path_);
  ASSERT_TRUE(results.ok()) << results.status().ToString();
  ASSERT_GT(results->records.size(), 10u);
  for (size_t i = 0; i < results->records.size(); ++i) {
    EXPECT_EQ(results->records[i], Sample(static_cast<int>(i)));
  }
  EXPECT_FALSE(results->complete);
}

TEST_F(ResultFileTest, KeepsTheEarlierResultAndForeignFiles) {
  {
    auto file = ResultFile::Create(path_, Header());
    ASSERT_TRUE(file.ok());
    ASSERT_TRUE(file->Append(Sample(1)).ok());
  }
  ASSERT_TRUE(ResultFile::Create(path_, Header()).ok());
  auto previous = ReadResults(path_ + ".previous");
  ASSERT_TRUE(previous.ok());
  EXPECT_EQ(previous->records.size(), 1u);

  const std::string thesis = (folder_ / "thesis.txt").string();
  std::ofstream(thesis) << "years of work";
  EXPECT_EQ(ResultFile::Create(thesis, Header()).status().code(),
            StatusCode::kInvalidArgument);
  EXPECT_EQ(fs::file_size(thesis), 13u);
}

TEST_F(ResultFileTest, SaysWhereItCannotWrite) {
  const auto missing =
      ResultFile::Create((folder_ / "no/such/r.json").string(), Header());
  EXPECT_EQ(missing.status().code(), StatusCode::kUnavailable);
  EXPECT_NE(missing.status().message().find("--json"), std::string::npos);
  EXPECT_EQ(ResultFile::Create("/dev/full", Header()).status().code(),
            StatusCode::kDataLoss);
}

TEST_F(ResultFileTest, EveryTruncationIsAnErrorAndNotACrash) {
  {
    auto file = ResultFile::Create(path_, Header());
    ASSERT_TRUE(file.ok() && file->Append(Sample(1)).ok());
    ASSERT_TRUE(file->Finish({.finished = "later"}).ok());
  }
  const auto size = fs::file_size(path_);
  // The last byte is a newline, which may be missing.
  for (uintmax_t n = size - 2; n > 0; --n) {
    fs::resize_file(path_, n);
    EXPECT_EQ(ReadResults(path_).status().code(), StatusCode::kDataLoss) << n;
  }
}

TEST_F(ResultFileTest, RefusesOtherSchemas) {
  std::ofstream(path_) << R"({"schema": 2, "records": []})";
  EXPECT_EQ(ReadResults(path_).status().code(), StatusCode::kInvalidArgument);
  std::ofstream(path_) << R"([1, 2])";
  EXPECT_EQ(ReadResults(path_).status().code(), StatusCode::kInvalidArgument);
  std::ofstream(path_) << R"({"schema": 1, "records": [{"case": 7}]})";
  EXPECT_EQ(ReadResults(path_).status().code(), StatusCode::kInvalidArgument);
  EXPECT_EQ(ReadResults(path_ + "x").status().code(), StatusCode::kUnavailable);
}

// A value nested deeper than the stack is not copied, and not printed either.
TEST_F(ResultFileTest, RefusesWhatIsNestedTooDeep) {
  const auto text = [](size_t depth) {
    return R"({"schema": 1, "records": [{"case": "a[\"[", "variant": "b",
        "backend": "c", "ranks": 1, "verdict": "passed", "params": {"p": )" +
           std::string(depth, '[') + std::string(depth, ']') + "}}]}";
  };
  EXPECT_TRUE(ParseResults(text(60), "f").ok())
      << ParseResults(text(60), "f").status().ToString();
  for (const size_t depth : {61, 1000000}) {
    const auto results = ParseResults(text(depth), "f");
    EXPECT_EQ(results.status().code(), StatusCode::kDataLoss);
    EXPECT_NE(results.status().message().find("nested"), std::string::npos);
  }
}

}  // namespace
}  // namespace shardproof
