#include "collectives/backend/node/child_process.h"

#include <gtest/gtest.h>
#include <signal.h>  // kill. NOLINT(modernize-deprecated-headers)
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <chrono>
#include <cstdlib>
#include <string>
#include <vector>

namespace shardproof {
namespace {

constexpr std::chrono::seconds kLong{60};

StatusOr<ChildProcess> Shell(const std::string& script,
                             std::vector<int> files = {},
                             const std::vector<std::string>& added = {}) {
  return ChildProcess::Start({.command = {"/bin/sh", "-c", script},
                              .environment = EnvironmentWith(added),
                              .files = std::move(files)});
}

std::string Ending(const std::string& script, std::vector<int> files = {},
                   const std::vector<std::string>& added = {}) {
  StatusOr<ChildProcess> child = Shell(script, std::move(files), added);
  if (!child.ok()) return child.status().ToString();
  if (!child->AwaitEnd(kLong)) return "does not end";
  return child->HowItEnded();
}

TEST(ChildProcessTest, SaysHowItEnded) {
  EXPECT_EQ(Ending("exit 0"), "ended with exit status 0");
  EXPECT_EQ(Ending("exit 7"), "ended with exit status 7");
  EXPECT_EQ(Ending("kill -TERM $$"), "was killed by signal 15 (Terminated)");
}

TEST(ChildProcessTest, WhatCannotBeStarted) {
  const auto child = ChildProcess::Start({.command = {"/nowhere"}});
  EXPECT_EQ(child.status().ToString(),
            "unavailable: cannot start /nowhere: No such file or directory");
}

TEST(ChildProcessTest, EndsWithItsOwnerAndIsNoZombie) {
  pid_t process = 0;
  {
    StatusOr<ChildProcess> child = Shell("sleep 1000");
    ASSERT_TRUE(child.ok());
    process = child->pid();
    EXPECT_FALSE(child->Ended());
    EXPECT_EQ(kill(process, 0), 0);
    // Away from the signals of this one's terminal.
    EXPECT_EQ(getpgid(process), process);
  }
  EXPECT_EQ(kill(process, 0), -1);
  EXPECT_EQ(errno, ESRCH);
}

TEST(ChildProcessTest, VariablesAreReplaced) {
  setenv("SHARDPROOF_ONE", "old", 1);
  setenv("SHARDPROOF_ONE_MORE", "kept", 1);
  EXPECT_EQ(Ending("[ $SHARDPROOF_ONE = new ] && "
                   "[ $SHARDPROOF_ONE_MORE = kept ]",
                   {}, {"SHARDPROOF_ONE=new"}),
            "ended with exit status 0");
}

// In the order of the list, whatever their numbers are here: those of the first
// pair are, as a rule, what the child is to have.
TEST(ChildProcessTest, GetsTheFilesAndNoOthers) {
  std::array<int, 2> first{};
  std::array<int, 2> second{};
  ASSERT_EQ(socketpair(AF_UNIX, SOCK_STREAM, 0, first.data()), 0);
  ASSERT_EQ(socketpair(AF_UNIX, SOCK_STREAM, 0, second.data()), 0);
  EXPECT_EQ(Ending("printf a >&3; printf b >&4; [ ! -e /dev/fd/5 ]",
                   {second[0], first[0]}),
            "ended with exit status 0");
  char got = 0;
  EXPECT_EQ(recv(second[1], &got, 1, MSG_DONTWAIT), 1);
  EXPECT_EQ(got, 'a');
  EXPECT_EQ(recv(first[1], &got, 1, MSG_DONTWAIT), 1);
  EXPECT_EQ(got, 'b');
  for (const int fd : {first[0], first[1], second[0], second[1]}) close(fd);
}

}  // namespace
}  // namespace shardproof
