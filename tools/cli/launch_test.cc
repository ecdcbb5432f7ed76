#include "tools/cli/launch.h"

#include <gtest/gtest.h>
#include <sys/stat.h>

#include <filesystem>
#include <fstream>

namespace shardproof {
namespace {

namespace fs = std::filesystem;

// Programs that stand for shardproof: the result file is their last argument.
class LaunchTest : public ::testing::Test {
 protected:
  void SetUp() override {
    auto folder = TemporaryFolder::Create("launch_test");
    ASSERT_TRUE(folder.ok()) << folder.status().ToString();
    folder_ = *std::move(folder);
  }

  std::string Program(const std::string& body) {
    const std::string path = folder_.path() + "/program";
    std::ofstream(path) << "#!/bin/sh\nfor file; do :; done\n" << body << "\n";
    chmod(path.c_str(), 0700);
    return path;
  }
  StatusOr<Launched> Run(const LaunchRequest& request) {
    return RunLaunch(request, folder_.path());
  }

  static constexpr const char* kResult =
      R"(echo '{"schema":1,"command":"x","records":[],"complete":true}' >$file)";
  TemporaryFolder folder_;
};

TEST_F(LaunchTest, GivesWhatWasWrittenAndTheExitCode) {
  const auto launched =
      Run({.binary = Program(std::string(kResult) + "\nexit 1")});
  ASSERT_TRUE(launched.ok()) << launched.status().ToString();
  EXPECT_EQ(launched->exit_code, 1);
  EXPECT_EQ(launched->launch.command, "x");
  EXPECT_TRUE(launched->launch.complete);
  EXPECT_GT(launched->seconds, 0);
}

TEST_F(LaunchTest, HandsOverArgumentsEnvironmentAndPlan) {
  const Plan plan = {{"key", 0.25}};
  const std::string said = folder_.path() + "/said";
  const auto launched =
      Run({.binary = Program("echo \"$@\" >" + said + "; echo \"$COLOUR\" >>" +
                             said + "; cat " + folder_.path() + "/plan >>" +
                             said + "; " + kResult),
           .launcher = {"env", "COLOUR=red"},
           .arguments = {"--ranks", "2"},
           .environment = {"COLOUR=blue"},
           .plan = &plan});
  ASSERT_TRUE(launched.ok()) << launched.status().ToString();
  std::ifstream in(said);
  std::string line;
  std::getline(in, line);
  EXPECT_EQ(line, "bench --ranks 2 --plan " + folder_.path() + "/plan --json " +
                      folder_.path() + "/results.json");
  std::getline(in, line);
  EXPECT_EQ(line, "red");  // The launcher is started with blue.
  std::getline(in, line);
  EXPECT_EQ(line, "0.25 key");
}

TEST_F(LaunchTest, SaysWhyThereIsNothing) {
  EXPECT_EQ(Run({.binary = "/no/such/program"}).status().code(),
            StatusCode::kUnavailable);
  const auto refused =
      Run({.binary = Program("echo 'no such flag' >&2; exit 2")});
  EXPECT_EQ(refused.status().code(), StatusCode::kInvalidArgument);
  EXPECT_EQ(refused.status().message(), "no such flag");
  const auto crashed =
      Run({.binary = Program("echo 'rank 3' >&2; kill -9 $$")});
  EXPECT_EQ(crashed.status().code(), StatusCode::kAborted);
  EXPECT_NE(crashed.status().message().find("rank 3"), std::string::npos);
  const auto late =
      Run({.binary = Program("sleep 600"), .timeout_seconds = 0.05});
  EXPECT_EQ(late.status().code(), StatusCode::kTimeout);
}

// The results of the launch before must not be taken for this one's.
TEST_F(LaunchTest, DoesNotReadAnEarlierResult) {
  ASSERT_TRUE(Run({.binary = Program(kResult)}).ok());
  EXPECT_EQ(Run({.binary = Program("exit 0")}).status().code(),
            StatusCode::kAborted);
}

TEST(TemporaryFolder, IsRemovedWithEverythingInIt) {
  std::string path;
  {
    auto folder = TemporaryFolder::Create("launch_test");
    ASSERT_TRUE(folder.ok());
    path = folder->path();
    std::ofstream(path + "/file") << "text";
    EXPECT_TRUE(fs::exists(path + "/file"));
  }
  EXPECT_FALSE(fs::exists(path));
}

}  // namespace
}  // namespace shardproof
