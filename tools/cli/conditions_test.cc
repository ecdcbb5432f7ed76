#include "tools/cli/conditions.h"

#include <gtest/gtest.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

namespace shardproof {
namespace {

TEST(Conditions, ReadsTheKernelsCounters) {
  // user nice system idle iowait irq softirq steal guest guest_nice
  EXPECT_EQ(ParseCpuTicks("cpu  10 20 30 400 50 6 7 80 9 9\ncpu0 1 1 1 1\n"),
            (CpuTicks{.busy = 73, .steal = 80, .total = 603}));
  // Kernels before 2.6.11 have no steal.
  EXPECT_EQ(ParseCpuTicks("cpu  1 2 3 4\n"),
            (CpuTicks{.busy = 6, .steal = 0, .total = 10}));
  EXPECT_EQ(ParseCpuTicks(""), CpuTicks());
  EXPECT_EQ(ParseCpuTicks("cpu0 1 2 3 4"), CpuTicks());
  EXPECT_EQ(ParseCpuTicks("cpu  x y"), CpuTicks());
}

TEST(Conditions, SharesAreOfTheTimeBetween) {
  const CpuTicks before{.busy = 100, .steal = 10, .total = 1000};
  const CpuTicks after{.busy = 180, .steal = 20, .total = 1200};
  const Conditions shares = SharesBetween(before, after, 50);
  EXPECT_DOUBLE_EQ(shares.steal_share, 0.05);
  EXPECT_DOUBLE_EQ(shares.busy_share, 0.15);
  // The kernel counts in ticks, and getrusage finer: never below nothing.
  EXPECT_EQ(SharesBetween(before, after, 81).busy_share, 0);
  EXPECT_EQ(SharesBetween(before, before, 0), Conditions());
  EXPECT_EQ(SharesBetween(after, before, 0), Conditions());
}

// Uses half a second of processor time, however long it takes.
void Work() {
  const auto used = [] {
    rusage usage = {};
    getrusage(RUSAGE_SELF, &usage);
    return usage.ru_utime.tv_sec * 1000000 + usage.ru_utime.tv_usec;
  };
  volatile double sink = 0;
  for (const auto end = used() + 500000; used() < end;) {
    for (int i = 0; i < 1000000; ++i) sink = sink + i;
  }
}

TEST(Conditions, OwnWorkIsThatOfTheProcessAndItsChildren) {
  const int64_t per_second = sysconf(_SC_CLK_TCK);
  const int64_t start = OwnTicks();
  Work();
  const int64_t middle = OwnTicks();
  // Rounded down twice.
  EXPECT_GE(middle - start, per_second / 2 - 2);
  const pid_t child = fork();
  if (child == 0) {
    Work();
    _exit(0);
  }
  ASSERT_EQ(waitpid(child, nullptr, 0), child);
  EXPECT_GE(OwnTicks() - middle, per_second / 2 - 2);
}

TEST(Conditions, WatchSeesTheTimeSinceItsBeginning) {
  const ConditionsWatch watch;
  EXPECT_EQ(watch.before().steal_share, 0);
  EXPECT_EQ(watch.before().busy_share, 0);
  const Conditions after = watch.Stop();
  EXPECT_GE(after.steal_share, 0);
  EXPECT_LE(after.steal_share + after.busy_share, 1);
  EXPECT_GE(after.throttle_events, watch.before().throttle_events);
}

TEST(Conditions, ThrottledLaunchesAreNotJudged) {
  const Conditions before{.throttle_events = 10};
  Conditions after = before;
  after.load = 100;
  after.busy_share = 0.9;
  after.steal_share = kMostSteal;
  EXPECT_EQ(Throttled(before, after), "");
  after.throttle_events = 11;
  EXPECT_EQ(Throttled(before, after),
            "the processors were throttled by heat 1 time");
  after = before;
  after.steal_share = 0.123;
  EXPECT_EQ(Throttled(before, after),
            "other virtual machines took 12.3 percent of the processors (most: "
            "5 percent)");
}

}  // namespace
}  // namespace shardproof
