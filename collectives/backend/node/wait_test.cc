#include "collectives/backend/node/wait.h"

#include <gtest/gtest.h>
#include <sched.h>
#include <unistd.h>

#include <chrono>
#include <cstdlib>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "collectives/backend/node/abort_flag.h"

namespace shardproof {
namespace {

using std::chrono::milliseconds;

TEST(AbortFlagTest, KeepsTheFirstReason) {
  AbortFlag flag;
  EXPECT_FALSE(flag.raised());
  EXPECT_TRUE(flag.status().ok());
  flag.Raise("first");
  flag.Raise("second");
  EXPECT_TRUE(flag.raised());
  EXPECT_EQ(flag.status().code(), StatusCode::kAborted);
  EXPECT_EQ(flag.status().message(), "first");
}

TEST(AbortFlagTest, CutsALongReason) {
  AbortFlag flag;
  flag.Raise(std::string(5000, 'x'));
  EXPECT_EQ(flag.status().message(), std::string(500, 'x'));
}

TEST(AbortFlagTest, OneOfManyWins) {
  for (int round = 0; round < 50; ++round) {
    AbortFlag flag;
    std::vector<std::thread> threads;
    for (int t = 0; t < 4; ++t) {
      threads.emplace_back([&flag, t] {
        flag.Raise(std::string(100, static_cast<char>('a' + t)));
      });
    }
    for (std::thread& thread : threads) thread.join();
    const std::string reason(flag.status().message());
    ASSERT_EQ(reason.size(), 100u);
    EXPECT_EQ(reason, std::string(100, reason[0]));
  }
}

class WaitTest : public ::testing::TestWithParam<bool> {};
INSTANTIATE_TEST_SUITE_P(SpinOrNot, WaitTest, ::testing::Bool());

TEST_P(WaitTest, SeesWhatWasWrittenBefore) {
  AbortFlag abort;
  const Waiting how{.abort = &abort, .spin = GetParam()};
  Signal signal;
  int data = 0;
  // The waits are looked at awake, then yielding, then asleep.
  for (const int delay_ms : {0, 1, 20}) {
    const uint32_t next = signal.value.load() + 1;
    std::thread writer([&] {
      std::this_thread::sleep_for(milliseconds(delay_ms));
      data = delay_ms;
      signal.Publish(next, how.spin);
    });
    EXPECT_TRUE(
        WaitUntil(signal, how, [next](uint32_t v) { return v == next; }));
    EXPECT_EQ(data, delay_ms);
    writer.join();
  }
  EXPECT_EQ(signal.sleepers.load(), 0u);
}

TEST_P(WaitTest, WakesManySleepers) {
  AbortFlag abort;
  const Waiting how{.abort = &abort, .spin = GetParam()};
  Signal signal;
  std::vector<std::thread> waiters;
  std::atomic<int> woken{0};
  for (int t = 0; t < 5; ++t) {
    waiters.emplace_back([&] {
      if (WaitUntil(signal, how, [](uint32_t v) { return v == 7; })) ++woken;
    });
  }
  std::this_thread::sleep_for(milliseconds(30));
  signal.Publish(7, how.spin);
  for (std::thread& waiter : waiters) waiter.join();
  EXPECT_EQ(woken, 5);
}

TEST_P(WaitTest, EndsWhenAborted) {
  AbortFlag abort;
  const Waiting how{.abort = &abort, .spin = GetParam()};
  Signal signal;
  std::thread aborter([&] {
    std::this_thread::sleep_for(milliseconds(20));
    abort.Raise("enough");
  });
  EXPECT_FALSE(WaitUntil(signal, how, [](uint32_t v) { return v == 1; }));
  aborter.join();
  // What has happened already is not lost to an abort.
  EXPECT_TRUE(WaitUntil(signal, how, [](uint32_t v) { return v == 0; }));
}

TEST(BriefLockTest, ExcludesOthers) {
  BriefLock lock;
  int64_t count = 0;
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&] {
      for (int i = 0; i < 20000; ++i) {
        const std::lock_guard<BriefLock> held(lock);
        ++count;
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(count, 80000);
}

// In a process of its own, since the first answer is kept.
TEST(UsableCoresDeathTest, AreThoseOfTheProcessAndNotOfTheMachine) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  EXPECT_EXIT(
      {
        cpu_set_t one;
        CPU_ZERO(&one);
        CPU_SET(sched_getcpu(), &one);
        const bool set = sched_setaffinity(getpid(), sizeof(one), &one) == 0;
        std::_Exit(set ? 100 + UsableCores() : 1);
      },
      ::testing::ExitedWithCode(101), "");
}

}  // namespace
}  // namespace shardproof
