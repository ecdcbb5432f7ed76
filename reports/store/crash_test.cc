// Writers beside each other, and writers that are killed.
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <csignal>
#include <functional>
#include <string>
#include <vector>

#include "reports/store/store.h"
#include "reports/store/testing/store_fixture.h"

namespace shardproof {
namespace {

class CrashTest : public StoreFixture {
 protected:
  // Runs `body` in a process of its own, whose exit status it gives.
  static pid_t Fork(const std::function<int()>& body) {
    const pid_t child = fork();
    if (child == 0) _exit(body());
    EXPECT_GT(child, 0);
    return child;
  }
  static int ExitOf(pid_t child) {
    int status = 0;
    EXPECT_EQ(waitpid(child, &status, 0), child);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
  }
};

TEST_F(CrashTest, TwoWritersLoseNothing) {
  constexpr int kRecords = 500;
  // Both create the file, too.
  std::vector<pid_t> children;
  for (const std::string variant : {"first", "second"}) {
    children.push_back(Fork([&] {
      auto store = Store::Open(path_);
      if (!store.ok()) return 2;
      const auto id = store->BeginLaunch({.fingerprint = Machine(),
                                          .command = variant,
                                          .started = "2026-03-01"});
      if (!id.ok()) return 3;
      for (int i = 0; i < kRecords; ++i) {
        if (!store->Add(*id, Sample(variant, i, 1.5)).ok()) return 4;
        // Which reads before it writes.
        if (i % 10 != 0) continue;
        Launch file = LaunchAt(i / 10, {Sample("imported", i)});
        file.fingerprint.host = variant;
        if (!store->Import(file).ok()) return 6;
      }
      return store->EndLaunch(*id, {.complete = true}).ok() ? 0 : 5;
    }));
  }
  for (const pid_t child : children) EXPECT_EQ(ExitOf(child), 0);

  auto store = Store::Open(path_, StoreMode::kReadOnly);
  ASSERT_TRUE(store.ok()) << store.status().ToString();
  EXPECT_TRUE(store->Check().ok());
  EXPECT_EQ(store->Launches({.filter = "imported", .last = 0})->size(),
            2u * kRecords / 10);
  const auto launches = store->Launches({.filter = "first|second"});
  ASSERT_TRUE(launches.ok() && launches->size() == 2);
  for (const Launch& launch : *launches) {
    ASSERT_EQ(launch.records.size(), static_cast<size_t>(kRecords));
    for (int i = 0; i < kRecords; ++i) {
      EXPECT_EQ(launch.records[static_cast<size_t>(i)],
                Sample(launch.command, i, 1.5));
    }
  }
}

TEST_F(CrashTest, AKilledWriterLosesNothingThatItHadAcknowledged) {
  for (int round = 0; round < 5; ++round) {
    std::array<int, 2> ends = {};
    ASSERT_EQ(pipe(ends.data()), 0);
    const std::string command = "round " + std::to_string(round);
    const pid_t child = Fork([&] {
      auto store = Store::Open(path_);
      if (!store.ok()) return 2;
      const auto id = store->BeginLaunch({.fingerprint = Machine(),
                                          .command = command,
                                          .started = "2026-03-01"});
      if (!id.ok()) return 3;
      for (int i = 0;; ++i) {
        if (!store->Add(*id, Sample("ring", i)).ok()) return 4;
        if (write(ends[1], &i, sizeof(i)) != sizeof(i)) return 5;
      }
    });
    close(ends[1]);
    // Wherever it is after so many records: in most rounds inside of a
    // transaction, since it does nothing else.
    int i = 0;
    for (int seen = 0; seen < 50 + 37 * round; ++seen) {
      ASSERT_EQ(read(ends[0], &i, sizeof(i)), static_cast<ssize_t>(sizeof(i)));
    }
    kill(child, SIGKILL);
    EXPECT_EQ(ExitOf(child), -SIGKILL);
    int acknowledged = i + 1;
    while (read(ends[0], &i, sizeof(i)) == sizeof(i)) acknowledged = i + 1;
    close(ends[0]);

    auto store = Store::Open(path_);
    ASSERT_TRUE(store.ok()) << store.status().ToString();
    const Status check = store->Check();
    EXPECT_TRUE(check.ok()) << check.ToString();
    auto launches = store->Launches({.complete_only = false, .last = 0});
    ASSERT_TRUE(launches.ok()) << launches.status().ToString();
    ASSERT_EQ(launches->size(), static_cast<size_t>(round) + 1);
    const Launch& launch = launches->back();
    EXPECT_EQ(launch.command, command);
    EXPECT_FALSE(launch.complete);
    // The last one may have been committed and not yet acknowledged.
    const auto kept = static_cast<int>(launch.records.size());
    EXPECT_GE(kept, acknowledged);
    EXPECT_LE(kept, acknowledged + 1);
    for (int k = 0; k < kept; ++k) {
      ASSERT_EQ(launch.records[static_cast<size_t>(k)], Sample("ring", k));
    }
  }
}

}  // namespace
}  // namespace shardproof
