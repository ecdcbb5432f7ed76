// The emulated GPU by itself: memory, streams, events, time.
#include "collectives/backend/cuda/device/emulated_gpu.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <chrono>
#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include "collectives/backend/cuda/kernels/world.h"

namespace shardproof::cuda {
namespace {

constexpr std::chrono::seconds kLong(60);

std::shared_ptr<GpuSystem> Open(const EmulatedGpuOptions& options) {
  auto gpus = OpenEmulatedGpus(options);
  EXPECT_TRUE(gpus.ok()) << gpus.status().ToString();
  return *std::move(gpus);
}

TEST(EmulatedGpuTest, KnowsItsOwnMemory) {
  const auto gpus = Open({.count = 2});
  const Buffer data = gpus->gpu(1).Allocate(100).value();
  const std::vector<std::byte> ordinary(100);
  EXPECT_TRUE(gpus->Addresses(data.data()));
  EXPECT_TRUE(gpus->Addresses(data.data() + 99));
  EXPECT_FALSE(gpus->Addresses(data.data() - 1));
  EXPECT_FALSE(gpus->Addresses(ordinary.data()));
  EXPECT_FALSE(gpus->Addresses(nullptr));
  EXPECT_EQ(NameOf(*gpus, 1), "GPU 1 (emulated)");
  EXPECT_TRUE(gpus->emulated());
}

TEST(EmulatedGpuTest, GivesZeroedFlags) {
  const auto gpus = Open({});
  for (const Buffer& flags : {gpus->gpu(0).AllocateFlags(5000).value(),
                              gpus->gpu(0).AllocateReports(5000).value()}) {
    EXPECT_EQ(std::count(flags.data(), flags.data() + 5000, std::byte{0}),
              5000);
  }
}

// A copy on one stream, which another waits for.
TEST(EmulatedGpuTest, OrdersStreamsByEvents) {
  const auto gpus = Open({.count = 2});
  const auto first = gpus->gpu(0).NewStream().value();
  const auto second = gpus->gpu(1).NewStream().value();
  const auto event = gpus->gpu(0).NewEvent().value();
  std::vector<int> a(1 << 16, 7);
  std::vector<int> b(a.size());
  std::vector<int> c(a.size());
  const size_t bytes = a.size() * sizeof(int);
  ASSERT_TRUE(first->Copy(b.data(), a.data(), bytes).ok());
  ASSERT_TRUE(first->Record(*event).ok());
  ASSERT_TRUE(second->Wait(*event).ok());
  ASSERT_TRUE(second->Copy(c.data(), b.data(), bytes).ok());
  const Status done = Synchronize(*second, kLong);
  ASSERT_TRUE(done.ok()) << done.ToString();
  EXPECT_EQ(c, a);
}

TEST(EmulatedGpuTest, TimesWhatIsBetweenEvents) {
  const auto gpus = Open({});
  Gpu& gpu = gpus->gpu(0);
  const auto stream = gpu.NewStream().value();
  const auto from = gpu.NewEvent().value();
  const auto to = gpu.NewEvent().value();
  EXPECT_FALSE(gpu.Microseconds(*from, *to).ok());
  ASSERT_TRUE(stream->Record(*from).ok());
  ASSERT_TRUE(stream->Record(*to).ok());
  ASSERT_TRUE(Synchronize(*stream, kLong).ok());
  EXPECT_GE(gpu.Microseconds(*from, *to).value(), 0);
  EXPECT_LE(gpu.Microseconds(*to, *from).value(), 0);
}

CollectiveLaunch BarrierOf(SignalPage& page) {
  InitializeSignals(page);
  CollectiveLaunch launch;
  launch.world.pages[0] = &page;
  launch.blocks = 2;
  launch.threads = 3;
  return launch;
}

TEST(EmulatedGpuTest, RunsAKernel) {
  const auto gpus = Open({});
  const auto stream = gpus->gpu(0).NewStream().value();
  const auto page = std::make_unique<SignalPage>();
  const CollectiveLaunch launch = BarrierOf(*page);
  ASSERT_TRUE(gpus->gpu(0).Prepare(launch).ok());
  ASSERT_TRUE(stream->Launch(launch).ok());
  ASSERT_TRUE(Synchronize(*stream, kLong).ok());
  // Each block has completed a round.
  EXPECT_EQ(page->round[0], 1u);
  EXPECT_EQ(page->round[1], 1u);
  EXPECT_EQ(page->round[2], 0u);
}

// An error stays with the stream until somebody asks.
TEST(EmulatedGpuTest, TellsOfAKernelThatFailed) {
  const auto gpus = Open({.faults = {.failing_launch = 0}});
  const auto stream = gpus->gpu(0).NewStream().value();
  const auto page = std::make_unique<SignalPage>();
  ASSERT_TRUE(stream->Launch(BarrierOf(*page)).ok());
  const Status failed = Synchronize(*stream, kLong);
  EXPECT_EQ(failed.code(), StatusCode::kInternal) << failed.ToString();
}

TEST(SynchronizeTest, EndsAtItsTimeoutAndWithHealth) {
  const auto gpus = Open({.faults = {.endless_launch = 0}});
  const auto stream = gpus->gpu(0).NewStream().value();
  const auto page = std::make_unique<SignalPage>();
  ASSERT_TRUE(stream->Launch(BarrierOf(*page)).ok());
  EXPECT_EQ(Synchronize(*stream, std::chrono::milliseconds(20)).code(),
            StatusCode::kTimeout);
  EXPECT_EQ(
      Synchronize(*stream, kLong, [] { return Aborted("by a peer"); }).code(),
      StatusCode::kAborted);
}

TEST(EmulatedGpuTest, RefusesWhatCannotBe) {
  EXPECT_EQ(OpenEmulatedGpus({.count = 17}).status().code(),
            StatusCode::kInvalidArgument);
  EXPECT_EQ(OpenEmulatedGpus({.count = -1}).status().code(),
            StatusCode::kInvalidArgument);
  EXPECT_EQ(OpenEmulatedGpus({.block_threads = 0}).status().code(),
            StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace shardproof::cuda
