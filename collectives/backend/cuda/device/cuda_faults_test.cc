// What goes wrong with GPUs, planted: every fault is one sentence that names who, and nobody hangs.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <chrono>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "collectives/backend/cuda/device/cuda_world.h"
#include "collectives/backend/cuda/device/emulated_gpu.h"

namespace shardproof::cuda {
namespace {

using std::chrono::milliseconds;
using ::testing::HasSubstr;

std::unique_ptr<ThreadWorld> MakeWorld(int ranks, EmulatedGpuOptions gpus,
                                       const CudaTuning& tuning = {}) {
  auto system = OpenEmulatedGpus(gpus);
  EXPECT_TRUE(system.ok()) << system.status().ToString();
  auto world =
      CreateCudaWorld({.ranks = ranks, .gpus = *system, .tuning = tuning});
  EXPECT_TRUE(world.ok()) << world.status().ToString();
  return *std::move(world);
}

Status AllReduce(const Communicator& comm, const Buffer& data, int64_t count) {
  return comm.Native({.primitive = "all_reduce",
                      .send = data.data(),
                      .recv = data.data(),
                      .count = count,
                      .in_place = true});
}

// What every rank gets of one all_reduce.
std::vector<Status> Answers(ThreadWorld& world, int calls = 1) {
  std::vector<Status> answers(static_cast<size_t>(world.ranks()));
  const Status status = world.Run([&](const Communicator& comm) -> Status {
    SP_ASSIGN_OR_RETURN(const Buffer data, comm.Allocate(64));
    std::fill_n(data.as<float>(), 16, 0.0f);
    Status& mine = answers[static_cast<size_t>(comm.rank())];
    for (int call = 0; call < calls; ++call) mine = AllReduce(comm, data, 16);
    // The host's algorithms still work.
    return comm.Barrier();
  });
  EXPECT_TRUE(status.ok()) << status.ToString();
  return answers;
}

void ExpectAll(const std::vector<Status>& answers, StatusCode code,
               const std::string& words) {
  for (const Status& answer : answers) {
    EXPECT_EQ(answer.code(), code) << answer.ToString();
    EXPECT_THAT(std::string(answer.message()), HasSubstr(words));
  }
}

TEST(DriverTest, SaysWhatIsMissing) {
  const auto open = [](const EmulatedGpuOptions& options) {
    const auto gpus = OpenEmulatedGpus(options);
    EXPECT_EQ(gpus.status().code(), StatusCode::kUnavailable);
    return std::string(gpus.status().message());
  };
  EXPECT_THAT(open({.driver = 0}), HasSubstr("no CUDA driver"));
  EXPECT_THAT(open({.driver = 12040}),
              HasSubstr("too old: it supports CUDA 12.4, and this program is "
                        "of CUDA 13.0"));
  EXPECT_THAT(open({.count = 0}), HasSubstr("no GPU"));
  // A minor version is no obstacle.
  EXPECT_TRUE(CheckDriver(13000, 13010, 1).ok());
  EXPECT_TRUE(CheckDriver(14000, 13000, 1).ok());
}

TEST(FaultsTest, NoManagedMemory) {
  auto gpus = OpenEmulatedGpus({.faults = {.no_managed_memory = true}});
  ASSERT_TRUE(gpus.ok());
  const auto world = CreateCudaWorld({.ranks = 1, .gpus = *gpus});
  EXPECT_EQ(world.status().code(), StatusCode::kUnavailable);
  EXPECT_THAT(std::string(world.status().message()),
              HasSubstr("GPU 0 (emulated) cannot use memory"));
}

TEST(FaultsTest, OutOfMemoryForABuffer) {
  const auto world = MakeWorld(2, {.memory_bytes = 1 << 20});
  const Status status = world->Run([](const Communicator& comm) -> Status {
    const auto refused = comm.Allocate(3 << 20);
    if (refused.status().code() != StatusCode::kOutOfMemory) {
      return Internal("{}", refused.status().ToString());
    }
    EXPECT_THAT(std::string(refused.status().message()),
                HasSubstr("GPU 0 (emulated): 3 MiB were asked for"));
    // What is given back is there again.
    for (int i = 0; i < 8; ++i) {
      SP_ASSIGN_OR_RETURN(const Buffer half, comm.Allocate(400 << 10));
      SP_RETURN_IF_ERROR(comm.Barrier());
    }
    return OkStatus();
  });
  EXPECT_TRUE(status.ok()) << status.ToString();
}

TEST(FaultsTest, OutOfMemoryForTheFlags) {
  const auto world = MakeWorld(2, {.memory_bytes = 100 << 10});
  ExpectAll(Answers(*world), StatusCode::kOutOfMemory,
            "making the streams and flags of rank 0 on GPU 0 (emulated)");
}

TEST(FaultsTest, NoPeerAccess) {
  const EmulatedGpuOptions two = {.count = 2,
                                  .faults = {.no_peer_access = true}};
  ExpectAll(Answers(*MakeWorld(2, two)), StatusCode::kUnsupported,
            "GPU 0 (emulated) cannot address the memory of GPU 1");
  // Of one GPU nobody asks.
  EmulatedGpuOptions one = two;
  one.count = 1;
  ExpectAll(Answers(*MakeWorld(2, one)), StatusCode::kOk, "");
}

TEST(FaultsTest, NoCooperativeLaunch) {
  ExpectAll(Answers(*MakeWorld(2, {.faults = {.no_cooperative_launch = true}})),
            StatusCode::kUnsupported,
            "GPU 0 (emulated) has no cooperative launch");
}

TEST(FaultsTest, MoreRanksThanTheGpuHoldsBlocks) {
  ExpectAll(Answers(*MakeWorld(3, {.multiprocessors = 2})),
            StatusCode::kUnsupported,
            "holds 2 blocks at a time, and 3 ranks of 1 blocks are 3");
  ExpectAll(Answers(*MakeWorld(3, {.multiprocessors = 3})), StatusCode::kOk,
            "");
}

// Nothing else is waited for longer than that.
constexpr CudaTuning kImpatient = {.patience = milliseconds(200),
                                   .timeout = milliseconds(2000)};

TEST(FaultsTest, ARefusedLaunch) {
  // The second of two GPUs: the kernel of the first waits until its patience ends.
  const auto world =
      MakeWorld(2, {.count = 2, .faults = {.refused_launch = 3}}, kImpatient);
  // The group is of no use afterwards, and says why.
  for (const int calls : {2, 1}) {
    ExpectAll(Answers(*world, calls), StatusCode::kInternal,
              "launching on GPU 1 (emulated): launch 3 was told to be refused");
  }
}

TEST(FaultsTest, AFailingKernel) {
  const auto world =
      MakeWorld(2, {.faults = {.failing_launch = 0}}, kImpatient);
  const std::vector<Status> answers = Answers(*world);
  EXPECT_EQ(answers[0].code(), StatusCode::kInternal);
  EXPECT_THAT(std::string(answers[0].message()),
              HasSubstr("all_reduce of 16 f32 by the kernel of rank 0 on GPU 0 "
                        "(emulated): launch 0 was told to fail"));
  ExpectAll(Answers(*world), StatusCode::kInternal, "launch 0");
}

TEST(FaultsTest, AKernelThatIsNotThere) {
  // Of ranks 0 and 2 on GPU 0 and rank 1 on GPU 1, the latter's.
  const auto world =
      MakeWorld(3, {.count = 2, .faults = {.lost_launch = 1}}, kImpatient);
  const std::vector<Status> answers = Answers(*world);
  for (const int rank : {0, 2}) {
    const Status& answer = answers[static_cast<size_t>(rank)];
    EXPECT_EQ(answer.code(), StatusCode::kTimeout) << answer.ToString();
    EXPECT_THAT(
        std::string(answer.message()),
        HasSubstr("waited 200 ms in vain for rank 1 on GPU 1 (emulated)"));
  }
  ExpectAll(Answers(*world), StatusCode::kTimeout, "in vain for rank 1");
}

TEST(FaultsTest, AKernelThatDoesNotEnd) {
  const auto world =
      MakeWorld(2, {.faults = {.endless_launch = 0}},
                {.patience = milliseconds(100), .timeout = milliseconds(200)});
  ExpectAll(Answers(*world), StatusCode::kTimeout,
            "the stream was not done within 200 ms");
}

constexpr auto kForever = std::chrono::hours(1);

// An abort ends the wait for ranks that do not come, and the wait for a kernel.
TEST(AbortTest, EndsNative) {
  const auto world = MakeWorld(3, {.count = 2});
  const Status status = world->Run([](const Communicator& comm) -> Status {
    if (comm.rank() == 0) {
      comm.Abort("rank 0 gave up");
      return OkStatus();
    }
    SP_ASSIGN_OR_RETURN(const Buffer data, comm.Allocate(64));
    const Status ended = AllReduce(comm, data, 16);
    return ended.code() == StatusCode::kAborted ? OkStatus() : ended;
  });
  EXPECT_TRUE(status.ok()) << status.ToString();
  EXPECT_FALSE(world->healthy());
}

TEST(AbortTest, EndsTheWaitForAKernel) {
  const auto world =
      MakeWorld(2, {.faults = {.endless_launch = 0}},
                {.patience = milliseconds(100), .timeout = kForever});
  const Status status = world->Run([](const Communicator& comm) -> Status {
    SP_ASSIGN_OR_RETURN(const Communicator other, comm.Duplicate());
    SP_ASSIGN_OR_RETURN(const Buffer data, comm.Allocate(64));
    std::thread aborts([&] {
      // Once the kernel is most likely under way; either way it must end.
      std::this_thread::sleep_for(milliseconds(50));
      if (comm.rank() == 0) other.Abort("enough");
    });
    const Status ended = AllReduce(comm, data, 16);
    aborts.join();
    return ended.code() == StatusCode::kAborted ? OkStatus() : ended;
  });
  EXPECT_TRUE(status.ok()) << status.ToString();
}

}  // namespace
}  // namespace shardproof::cuda
