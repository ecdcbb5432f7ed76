// Every kernel in hundreds of seeded schedules. To run one of KernelsTest again:
// SHARDPROOF_FIBER_SEED=<seed> and --gtest_filter.
#include <gtest/gtest.h>

#include <cstdlib>
#include <string>
#include <vector>

#include "collectives/backend/cuda/testing/child.h"
#include "collectives/backend/cuda/testing/kernel_call.h"
#include "collectives/backend/cuda/testing/kernel_run.h"

namespace shardproof::cuda {
namespace {

using testing::Call;
using testing::DrawInstance;
using testing::Instance;

// ThreadSanitizer needs ten times as long for one.
const uint64_t kSeeds = testing::NoThreadSanitizer() == nullptr ? 200 : 400;

std::string WhatIsWrong(FiberScheduler& scheduler, const Instance& instance) {
  return testing::RunInstance<StandardProtocol, StandardOrders, true>(scheduler,
                                                                      instance);
}

class KernelsTest : public ::testing::TestWithParam<Primitive> {};

TEST_P(KernelsTest, LeavesTheExactResultInEverySchedule) {
  FiberScheduler scheduler;
  uint64_t first = 0, end = kSeeds;
  if (const char* seed = std::getenv("SHARDPROOF_FIBER_SEED")) {
    first = std::strtoull(seed, nullptr, 10);
    end = first + 1;
  }
  for (uint64_t seed = first; seed < end; ++seed) {
    const Instance instance = DrawInstance(GetParam(), seed);
    const std::string wrong = WhatIsWrong(scheduler, instance);
    ASSERT_EQ(wrong, "") << Describe(instance);
  }
}

INSTANTIATE_TEST_SUITE_P(All, KernelsTest, ::testing::ValuesIn(kAllPrimitives),
                         [](const auto& info) {
                           return std::string(testing::Name(info.param));
                         });

// What a rank does before a barrier is there for every rank after it.
TEST(BarrierKernelTest, OrdersWhatIsAroundIt) {
  FiberScheduler scheduler;
  for (uint64_t seed = 0; seed < kSeeds; ++seed) {
    const Instance instance = DrawInstance(Primitive::kBarrier, seed);
    testing::KernelMemory memory(instance);
    const int ranks = instance.grid.ranks;
    // One row for each block: blocks of different numbers do not meet.
    std::vector<int> cells(static_cast<size_t>(ranks) * instance.grid.blocks);
    std::vector<int> wrong(static_cast<size_t>(ranks) * instance.grid.blocks);
    const Status status = scheduler.Run(
        instance.grid, instance.schedule, [&](FiberThread& thread) {
          FiberContext context(thread);
          const auto cell = [&](int rank) {
            return rank * instance.grid.blocks + thread.block();
          };
          Rounds<FiberContext<>> rounds(context, memory.world());
          if (!rounds.Begin()) return;
          for (int round = 1; round <= 3; ++round) {
            if (thread.thread() == 0) {
              context.Store(&cells[cell(thread.rank())], round);
            }
            if (!Barrier(rounds)) return;
            for (int rank = 0; rank < ranks; ++rank) {
              if (context.Load(&cells[cell(rank)]) != round &&
                  thread.thread() == 0) {
                ++wrong[cell(thread.rank())];
              }
            }
            if (!Barrier(rounds)) return;
          }
          rounds.End();
        });
    ASSERT_TRUE(status.ok()) << status.ToString() << Describe(instance);
    ASSERT_EQ(wrong, std::vector<int>(wrong.size())) << Describe(instance);
  }
}

// Kernels of all kinds in turn: they count rounds and use slots together.
TEST(MixedKernelsTest, FollowOneAnother) {
  FiberScheduler scheduler;
  for (uint64_t seed = 0; seed < kSeeds; ++seed) {
    Instance instance = DrawInstance(Primitive::kBarrier, seed);
    instance.calls.clear();
    for (uint64_t i = 0; i < 5; ++i) {
      const Primitive primitive = kAllPrimitives[(seed * 7 + i * 4) % 9];
      Call call = DrawInstance(primitive, seed * 5 + i).calls[i % 3];
      call.root %= instance.grid.ranks;
      call.shift %= instance.grid.ranks;
      instance.calls.push_back(call);
    }
    const std::string wrong = WhatIsWrong(scheduler, instance);
    ASSERT_EQ(wrong, "") << Describe(instance);
  }
}

// Rank 1 calls a barrier once less than the others: they give up, say whom they missed, and no kernel after that does
// anything.
TEST(FailureTest, AMissingRankIsADeadline) {
  FiberScheduler scheduler;
  Instance instance = DrawInstance(Primitive::kBarrier, 1);
  instance.grid = {.ranks = 3, .blocks = 2, .threads = 2};
  instance.patience = 10000;
  instance.first_round = 5;
  testing::KernelMemory memory(instance);
  const Status status =
      scheduler.Run(instance.grid, instance.schedule, [&](FiberThread& thread) {
        if (thread.rank() == 1) return;
        FiberContext context(thread);
        for (int call = 0; call < 2; ++call) {
          Rounds<FiberContext<>> rounds(context, memory.world());
          if (rounds.Begin() && Barrier(rounds)) rounds.End();
          thread.EndOfKernel();
        }
      });
  ASSERT_TRUE(status.ok()) << status.ToString();
  for (const int rank : {0, 2}) {
    const SignalPage& page = *memory.world().pages[rank];
    const Failure failure = Failure::Unpack(page.failure);
    EXPECT_EQ(failure.code, FailureCode::kDeadline);
    EXPECT_EQ(failure.peer, 1);
    EXPECT_EQ(failure.round, 6u);
    EXPECT_EQ(page.round[0], 5u);
    EXPECT_EQ(page.round[1], 5u);
  }
  EXPECT_EQ(memory.world().pages[1]->failure, 0u);
}

// Rank 0 has completed two rounds more than its peer thinks.
TEST(FailureTest, RanksThatDisagreeAreABadSignal) {
  FiberScheduler scheduler;
  Instance instance = DrawInstance(Primitive::kBarrier, 1);
  instance.grid = {.ranks = 2, .blocks = 1, .threads = 1};
  testing::KernelMemory memory(instance);
  memory.world().pages[0]->round[0] += 2;
  const Status status =
      scheduler.Run(instance.grid, instance.schedule, [&](FiberThread& thread) {
        FiberContext context(thread);
        Rounds<FiberContext<>> rounds(context, memory.world());
        if (rounds.Begin() && Barrier(rounds)) rounds.End();
      });
  ASSERT_TRUE(status.ok()) << status.ToString();
  for (const int rank : {0, 1}) {
    EXPECT_EQ(Failure::Unpack(memory.world().pages[rank]->failure).code,
              FailureCode::kBadSignal);
  }
}

TEST(FailureTest, PacksAndUnpacks) {
  const Failure failure = {.code = FailureCode::kBadSignal,
                           .block = 127,
                           .peer = 15,
                           .round = 0xfffffffeu};
  const Failure back = Failure::Unpack(failure.Pack());
  EXPECT_EQ(back.code, failure.code);
  EXPECT_EQ(back.block, failure.block);
  EXPECT_EQ(back.peer, failure.peer);
  EXPECT_EQ(back.round, failure.round);
}

}  // namespace
}  // namespace shardproof::cuda
