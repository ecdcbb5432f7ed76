#include "tools/cli/launch.h"

#include <gtest/gtest.h>
#include <signal.h>  // kill. NOLINT(modernize-deprecated-headers)
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

class TurnsTest : public LaunchTest {
 protected:
  auto RunBoth(const LaunchRequest& first, const LaunchRequest& second) {
    return RunInTurns(first, second, 0.01, folder_.path());
  }
};

TEST_F(TurnsTest, OneIsStoppedWhileTheOtherRuns) {
  const std::string states = folder_.path() + "/states";
  // Each looks at the state of the other in /proc, again and again.
  const std::string program =
      Program("cd " + folder_.path() +
              "; echo $$ >pid.$NAME\n"
              "for i in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15; do\n"
              "  if [ -s pid.$OTHER ]; then\n"
              "    read pid <pid.$OTHER\n"
              "    if read -r _ _ state _ </proc/$pid/stat; then\n"
              "      echo $state >>states\n"
              "    fi\n"
              "  fi\n"
              "  sleep 0.005\n"
              "done 2>/dev/null\n" +
              std::string(kResult) + "\nexit $STATUS");
  const auto both = RunBoth(
      {.binary = program, .environment = {"NAME=a", "OTHER=b", "STATUS=1"}},
      {.binary = program, .environment = {"NAME=b", "OTHER=a", "STATUS=5"}});
  ASSERT_TRUE(both.ok()) << both.status().ToString();
  EXPECT_EQ(both->first.exit_code, 1);
  EXPECT_EQ(both->second.exit_code, 5);
  EXPECT_GT(both->first.seconds, 0);
  EXPECT_GT(both->second.seconds, 0);
  std::ifstream in(states);
  int stopped = 0;
  for (std::string state; in >> state;) {
    // D: in vfork, while its child is stopped.
    EXPECT_TRUE(state == "T" || state == "Z" || state == "D") << state;
    if (state == "T") ++stopped;
  }
  EXPECT_GE(stopped, 3);
}

TEST_F(TurnsTest, WhatOneDoesNotDoIsTheError) {
  const std::string good = Program(kResult);
  fs::rename(good, folder_.path() + "/good");
  const LaunchRequest fine = {.binary = folder_.path() + "/good"};
  const LaunchRequest refuses = {
      .binary = Program("echo 'no such flag' >&2; exit 2")};
  EXPECT_EQ(RunBoth(fine, refuses).status().message(), "no such flag");
  EXPECT_EQ(RunBoth(refuses, fine).status().code(),
            StatusCode::kInvalidArgument);
  EXPECT_EQ(RunBoth(fine, {.binary = "/no/such/program"}).status().code(),
            StatusCode::kUnavailable);
}

TEST_F(TurnsTest, AHangEndsBoth) {
  const std::string pids = folder_.path() + "/pids";
  const std::string program = Program("echo $$ >>" + pids + "; exec sleep 600");
  const LaunchRequest request = {.binary = program, .timeout_seconds = 0.2};
  EXPECT_EQ(RunBoth(request, request).status().code(), StatusCode::kTimeout);
  std::ifstream in(pids);
  int started = 0;
  for (pid_t pid = 0; in >> pid; ++started) {
    EXPECT_NE(kill(pid, 0), 0) << pid;
  }
  EXPECT_EQ(started, 2);
}

TEST(CanTakeTurns, OnlyWhatOneProcessStops) {
  EXPECT_TRUE(CanTakeTurns({.arguments = {"--ranks", "2"}}));
  EXPECT_TRUE(CanTakeTurns({.arguments = {"--backend", "thread"}}));
  EXPECT_TRUE(CanTakeTurns({.arguments = {"--backend=thread"}}));
  EXPECT_FALSE(CanTakeTurns({.arguments = {"--backend", "cuda"}}));
  EXPECT_FALSE(CanTakeTurns({.arguments = {"--backend=mpi"}}));
  EXPECT_FALSE(CanTakeTurns({.launcher = {"mpirun", "-np", "2"}}));
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
