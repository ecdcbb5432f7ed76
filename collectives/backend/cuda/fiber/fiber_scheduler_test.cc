// What the scheduler promises. Whether ThreadSanitizer sees a race is asked of a child process: this program with the
// name of a race as its argument.
#include "collectives/backend/cuda/fiber/fiber_scheduler.h"

#include <gtest/gtest.h>

#include <functional>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "collectives/backend/cuda/testing/child.h"

namespace shardproof::cuda {
namespace {

void Store(FiberThread& thread, uint32_t* flag, uint32_t value,
           int order = __ATOMIC_RELEASE) {
  thread.Notify(flag, [&] {
    order == __ATOMIC_RELEASE ? __atomic_store_n(flag, value, __ATOMIC_RELEASE)
                              : __atomic_store_n(flag, value, __ATOMIC_RELAXED);
  });
}

bool WaitFor(FiberThread& thread, const uint32_t* flag, uint32_t value,
             SpinNote note = {}) {
  note.wanted = value;
  return thread.Spin(flag, note, [&] {
    return __atomic_load_n(flag, __ATOMIC_ACQUIRE) == value;
  });
}

TEST(FiberSchedulerTest, RunsEveryThreadOfTheGridOnce) {
  FiberScheduler scheduler;
  std::vector<int> runs(2 * 3 * 4);
  for (int seed = 0; seed < 3; ++seed) {
    const Status status = scheduler.Run(
        {.ranks = 2, .blocks = 3, .threads = 4},
        {.seed = static_cast<uint64_t>(seed)}, [&](FiberThread& thread) {
          ++runs[(thread.rank() * 3 + thread.block()) * 4 + thread.thread()];
        });
    ASSERT_TRUE(status.ok()) << status.ToString();
  }
  EXPECT_EQ(runs, std::vector<int>(2 * 3 * 4, 3));
  EXPECT_EQ(scheduler.Run({.ranks = 0}, {}, [](FiberThread&) {}).code(),
            StatusCode::kInvalidArgument);
}

// The order in which 6 threads write down their number, three times each.
std::string OrderOf(FiberScheduler& scheduler, uint64_t seed) {
  std::string order;
  std::atomic<std::string*> out{&order};
  const Status status = scheduler.Run(
      {.ranks = 3, .blocks = 1, .threads = 2},
      {.seed = seed, .preempt_one_in = 1}, [&](FiberThread& thread) {
        for (int i = 0; i < 3; ++i) {
          // One order for ThreadSanitizer: the race is meant.
          std::string* const text = out.exchange(nullptr);
          *text += static_cast<char>('0' + thread.rank() * 2 + thread.thread());
          out.store(text);
          thread.Preempt();
        }
      });
  EXPECT_TRUE(status.ok()) << status.ToString();
  return order;
}

TEST(FiberSchedulerTest, SeedsReproduceAndDiffer) {
  FiberScheduler one, other;
  std::set<std::string> orders;
  for (uint64_t seed = 0; seed < 50; ++seed) {
    const std::string order = OrderOf(one, seed);
    const uint64_t trace = one.trace();
    EXPECT_EQ(order, OrderOf(other, seed)) << seed;
    EXPECT_EQ(trace, other.trace()) << seed;
    orders.insert(order);
  }
  // 18! / 3!^6 orders: two equal ones of 50 are as good as impossible.
  EXPECT_EQ(orders.size(), 50u);
}

TEST(FiberSchedulerTest, BarriersHoldTheBlockAndCarryVotes) {
  FiberScheduler scheduler;
  for (uint64_t seed = 0; seed < 200; ++seed) {
    std::vector<int> data(2 * 4);
    bool wrong = false;
    const Status status = scheduler.Run(
        {.ranks = 1, .blocks = 2, .threads = 4},
        {.seed = seed, .preempt_one_in = 2}, [&](FiberThread& thread) {
          int* const mine = &data[thread.block() * 4];
          for (int round = 1; round <= 3; ++round) {
            mine[thread.thread()] = round;
            thread.Preempt();
            // Thread 2 of block 1 votes in round 2.
            const bool vote = thread.Sync(round == 2 && thread.block() == 1 &&
                                          thread.thread() == 2);
            if (vote != (round == 2 && thread.block() == 1)) wrong = true;
            for (int t = 0; t < 4; ++t) {
              thread.Preempt();
              if (mine[t] != round) wrong = true;
            }
            thread.Sync();
          }
          thread.EndOfKernel();
          for (const int value : data) {
            if (value != 3) wrong = true;
          }
        });
    ASSERT_TRUE(status.ok()) << status.ToString();
    ASSERT_FALSE(wrong) << "seed " << seed;
  }
}

// Warps of 32, 32 and 6 threads.
TEST(FiberSchedulerTest, ShufflesExchangeWithinAWarp) {
  FiberScheduler scheduler;
  for (uint64_t seed = 0; seed < 20; ++seed) {
    bool wrong = false;
    const Status status = scheduler.Run(
        {.ranks = 1, .blocks = 2, .threads = 70},
        {.seed = seed, .preempt_one_in = 2}, [&](FiberThread& thread) {
          const int first = thread.thread() / kWarp * kWarp;
          const int lanes = first == 64 ? 6 : kWarp;
          for (int round = 0; round < 3; ++round) {
            const int source = (thread.thread() - first + round) % lanes;
            const auto value = [&](int t) {
              return uint64_t{1} << 40 |
                     static_cast<uint64_t>(t + 100 * round +
                                           1000 * thread.block());
            };
            thread.Preempt();
            if (thread.Shuffle(value(thread.thread()), source) !=
                value(first + source)) {
              wrong = true;
            }
          }
        });
    ASSERT_TRUE(status.ok()) << status.ToString();
    ASSERT_FALSE(wrong) << "seed " << seed;
  }
}

TEST(FiberSchedulerTest, SharedMemoryIsTheBlocksAndBeginsAsNaN) {
  FiberScheduler scheduler;
  int wrong = 0;
  for (int run = 0; run < 2; ++run) {
    const Status status = scheduler.Run(
        {.ranks = 1, .blocks = 2, .threads = 3, .shared_bytes = 40}, {},
        [&](FiberThread& thread) {
          std::byte* const shared = thread.Shared();
          for (int i = thread.thread(); i < 40; i += 3) {
            if (shared[i] != std::byte{0xff}) ++wrong;
          }
          thread.Sync();
          if (thread.thread() == 0) {
            shared[39] = static_cast<std::byte>(thread.block());
          }
          thread.Sync();
          if (shared[39] != static_cast<std::byte>(thread.block())) ++wrong;
        });
    ASSERT_TRUE(status.ok()) << status.ToString();
    EXPECT_EQ(wrong, 0);
  }
}

TEST(FiberSchedulerTest, FlagsWakeWhoSpins) {
  FiberScheduler scheduler;
  for (uint64_t seed = 0; seed < 100; ++seed) {
    uint32_t flag = 0;
    int data = 0;
    int seen = 0;
    const Status status =
        scheduler.Run({.ranks = 2}, {.seed = seed}, [&](FiberThread& thread) {
          if (thread.rank() == 0) {
            data = 7;
            Store(thread, &flag, 1);
          } else if (WaitFor(thread, &flag, 1)) {
            seen = data;
          }
        });
    ASSERT_TRUE(status.ok()) << status.ToString();
    ASSERT_EQ(seen, 7);
  }
}

TEST(FiberSchedulerTest, ReportsADeadlockWithWhoWaitsForWhat) {
  FiberScheduler scheduler;
  uint32_t flag = 3;
  const Status status = scheduler.Run(
      {.ranks = 2, .blocks = 1, .threads = 2}, {}, [&](FiberThread& thread) {
        if (thread.rank() == 0) return;
        if (thread.thread() == 1) {
          WaitFor(thread, &flag, 5, {.what = "the signal", .peer = 0});
        }
        thread.Sync();
      });
  ASSERT_EQ(status.code(), StatusCode::kInternal);
  const std::string text(status.message());
  EXPECT_NE(text.find("deadlock"), std::string::npos) << text;
  EXPECT_NE(
      text.find("rank 1, block 0: thread 1 waits for the signal of rank 0 "
                "to be 5; it is 3"),
      std::string::npos)
      << text;
  EXPECT_NE(text.find("rank 1, block 0: threads 0 at the barrier of line"),
            std::string::npos)
      << text;
  // The scheduler is of use again.
  EXPECT_TRUE(scheduler.Run({.ranks = 2}, {}, [](FiberThread&) {}).ok());
}

TEST(FiberSchedulerTest, ReportsDivergence) {
  FiberScheduler scheduler;
  const Grid block = {.ranks = 1, .blocks = 1, .threads = 3};
  for (uint64_t seed = 0; seed < 20; ++seed) {
    const Status left =
        scheduler.Run(block, {.seed = seed}, [](FiberThread& thread) {
          if (thread.thread() != 1) thread.Sync();
        });
    EXPECT_NE(left.message().find("divergence"), std::string_view::npos)
        << left.ToString();
    const Status parted =
        scheduler.Run(block, {.seed = seed}, [](FiberThread& thread) {
          // NOLINTNEXTLINE(bugprone-branch-clone): two barriers, in two lines.
          if (thread.thread() == 1) {
            thread.Sync();
          } else {
            thread.Sync();
          }
        });
    EXPECT_NE(parted.message().find("divergence"), std::string_view::npos)
        << parted.ToString();
  }
}

TEST(FiberSchedulerTest, ReportsShufflesThatAreNotOfAWholeWarp) {
  FiberScheduler scheduler;
  const Grid block = {.ranks = 1, .blocks = 1, .threads = 4};
  const auto says = [&](const std::function<void(FiberThread&)>& body,
                        std::string_view what) {
    for (uint64_t seed = 0; seed < 20; ++seed) {
      const Status status = scheduler.Run(block, {.seed = seed}, body);
      EXPECT_NE(status.message().find(what), std::string_view::npos)
          << status.ToString();
    }
  };
  says([](FiberThread& thread) { thread.Shuffle(1, 4); }, "is not there");
  says(
      [](FiberThread& thread) {
        // NOLINTNEXTLINE(bugprone-branch-clone): two shuffles, in two lines.
        if (thread.thread() == 1) {
          thread.Shuffle(1, 0);
        } else {
          thread.Shuffle(1, 0);
        }
      },
      "divergence");
  says(
      [](FiberThread& thread) {
        thread.thread() == 1 ? void(thread.Sync()) : void(thread.Shuffle(1, 0));
      },
      "at a shuffle");
  // Whether the one returns before the others come, or after, is the seed's affair.
  for (uint64_t seed = 0; seed < 20; ++seed) {
    const Status status =
        scheduler.Run(block, {.seed = seed}, [](FiberThread& thread) {
          if (thread.thread() != 1) thread.Shuffle(1, 0);
        });
    EXPECT_EQ(status.code(), StatusCode::kInternal);
  }
}

TEST(FiberSchedulerTest, DeadlinesPassWhenNobodyCanGoOn) {
  FiberScheduler scheduler;
  uint32_t flag = 0;
  bool late = true, early = true;
  const Status status =
      scheduler.Run({.ranks = 2}, {}, [&](FiberThread& thread) {
        if (thread.rank() == 0) {
          late = WaitFor(thread, &flag, 2, {.deadline = 1000000});
        } else {
          early = WaitFor(thread, &flag, 1, {.deadline = 1000});
          Store(thread, &flag, 2);
        }
      });
  ASSERT_TRUE(status.ok()) << status.ToString();
  EXPECT_FALSE(early);
  EXPECT_TRUE(late);
}

TEST(FiberSchedulerTest, EndsWhatDoesNotEnd) {
  FiberScheduler scheduler;
  const Status status =
      scheduler.Run({.ranks = 1}, {.preempt_one_in = 1, .most_turns = 1000},
                    [](FiberThread& thread) {
                      for (;;) thread.Preempt();
                    });
  EXPECT_NE(status.message().find("no end after 1000 turns"),
            std::string_view::npos)
      << status.ToString();
}

TEST(FiberSchedulerTest, TheSlowWarpFallsBehind) {
  FiberScheduler scheduler;
  for (uint64_t seed = 0; seed < 5; ++seed) {
    std::vector<std::atomic<int>> steps(2);
    int behind = 0;
    const Status status =
        scheduler.Run({.ranks = 1, .blocks = 1, .threads = 2 * kWarp},
                      {.seed = seed, .preempt_one_in = 1, .slow_warp = 1},
                      [&](FiberThread& thread) {
                        for (int i = 0; i < 50; ++i) {
                          ++steps[thread.thread() / kWarp];
                          thread.Preempt();
                        }
                        if (thread.thread() == 0) behind = steps[1];
                      });
    ASSERT_TRUE(status.ok());
    // About 50 * 32 / 64 steps; the other warp made most of its 50 * 32.
    EXPECT_LT(behind, 400) << seed;
  }
}

TEST(FiberSchedulerTest, TheSlowRankFallsBehind) {
  FiberScheduler scheduler;
  for (uint64_t seed = 0; seed < 20; ++seed) {
    std::vector<std::atomic<int>> steps(2);
    int behind = 0;
    const Status status = scheduler.Run(
        {.ranks = 2}, {.seed = seed, .preempt_one_in = 1, .slow_rank = 1},
        [&](FiberThread& thread) {
          for (int i = 0; i < 200; ++i) {
            ++steps[thread.rank()];
            thread.Preempt();
          }
          if (thread.rank() == 0) behind = steps[1];
        });
    ASSERT_TRUE(status.ok());
    // About 200 / 64 steps; what the other rank made in 200.
    EXPECT_LT(behind, 100) << seed;
  }
}

// --- ThreadSanitizer
// -----------------------------------------------------------------------------------------------------

// Rank 0 writes data and then a flag; rank 1 waits for the flag and reads.
int PassAMessage(int order) {
  FiberScheduler scheduler;
  uint32_t flag = 0;
  int data = 0;
  int sum = 0;
  const Status status =
      scheduler.Run({.ranks = 2}, {}, [&](FiberThread& thread) {
        if (thread.rank() == 0) {
          data = 7;
          Store(thread, &flag, 1, order);
        } else if (WaitFor(thread, &flag, 1)) {
          sum += data;
        }
      });
  return status.ok() && sum == 7 ? 0 : 1;
}

// Threads 0 and 1 meet at a barrier in vain: they write the same place after it.
int WriteBesideABarrier() {
  FiberScheduler scheduler;
  int data = 0;
  const Status status = scheduler.Run({.ranks = 1, .blocks = 1, .threads = 2},
                                      {}, [&](FiberThread& thread) {
                                        thread.Sync();
                                        data = thread.thread();
                                      });
  return status.ok() && data < 2 ? 0 : 1;
}

// Thread 0 writes, and thread 1 reads after a shuffle, which is no order.
int ReadAfterAShuffle() {
  FiberScheduler scheduler;
  int data = 0, sum = 0;
  const Status status = scheduler.Run({.ranks = 1, .blocks = 1, .threads = 2},
                                      {}, [&](FiberThread& thread) {
                                        if (thread.thread() == 0) data = 7;
                                        thread.Shuffle(1, 0);
                                        if (thread.thread() == 1) sum = data;
                                      });
  return status.ok() && sum == 7 ? 0 : 1;
}

TEST(FiberSanitizerTest, SeesARaceAcrossAShuffle) {
  if (const char* reason = testing::NoThreadSanitizer()) GTEST_SKIP() << reason;
  const testing::ChildResult race = testing::RunSelf({"--across_shuffle"});
  EXPECT_NE(race.exit_code, 0);
  EXPECT_NE(race.output.find("ThreadSanitizer: data race"), std::string::npos)
      << race.output;
}

TEST(FiberSanitizerTest, SeesTheRaceOfAWeakStore) {
  if (const char* reason = testing::NoThreadSanitizer()) GTEST_SKIP() << reason;
  const testing::ChildResult weak = testing::RunSelf({"--weak_store"});
  EXPECT_NE(weak.exit_code, 0);
  EXPECT_NE(weak.output.find("ThreadSanitizer: data race"), std::string::npos)
      << weak.output;
  const testing::ChildResult strong = testing::RunSelf({"--release_store"});
  EXPECT_EQ(strong.exit_code, 0) << strong.output;
}

TEST(FiberSanitizerTest, SeesARaceBesideABarrier) {
  if (const char* reason = testing::NoThreadSanitizer()) GTEST_SKIP() << reason;
  const testing::ChildResult race = testing::RunSelf({"--beside_barrier"});
  EXPECT_NE(race.exit_code, 0);
  EXPECT_NE(race.output.find("ThreadSanitizer: data race"), std::string::npos)
      << race.output;
}

}  // namespace

int RunAsChild(std::string_view flag) {
  if (flag == "--weak_store") return PassAMessage(__ATOMIC_RELAXED);
  if (flag == "--release_store") return PassAMessage(__ATOMIC_RELEASE);
  if (flag == "--beside_barrier") return WriteBesideABarrier();
  if (flag == "--across_shuffle") return ReadAfterAShuffle();
  return -1;
}

}  // namespace shardproof::cuda

int main(int argc, char** argv) {
  if (argc == 2) {
    const int status = shardproof::cuda::RunAsChild(argv[1]);
    if (status >= 0) return status;
  }
  testing::InitGoogleTest(&argc, argv);
  return RUN_ALL_TESTS();
}
