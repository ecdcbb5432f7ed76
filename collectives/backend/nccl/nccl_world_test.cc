// The nccl backend on emulated GPUs, by the library for tests: every primitive against the reference, groups, what is
// refused, and what fails.
#include "collectives/backend/nccl/nccl_world.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "collectives/backend/cuda/device/emulated_gpu.h"
#include "collectives/backend/nccl/testing/host_device.h"
#include "collectives/testing/check.h"
#include "collectives/testing/native_check.h"

namespace shardproof {
namespace {

using ::testing::HasSubstr;

StatusOr<std::unique_ptr<ThreadWorld>> Make(
    int ranks, int gpus, const std::string& path = testing::kHostNccl,
    std::chrono::milliseconds timeout = std::chrono::seconds(60)) {
  SP_ASSIGN_OR_RETURN(auto system, cuda::OpenEmulatedGpus({.count = gpus}));
  SP_ASSIGN_OR_RETURN(auto library, NcclLibrary::Load(path));
  return CreateNcclWorld(
      {.ranks = ranks, .gpus = system, .library = library, .timeout = timeout});
}

// What comes may lie where what goes is still to be read.
bool Refuses(const NativeRequest& request) {
  const std::string_view name = request.primitive;
  return request.in_place && request.count > 0 &&
         (name == "all_to_all" || name == "send_recv");
}

Status CheckAll(const Communicator& comm) {
  if (comm.backend_name() != "nccl") return Internal("not nccl");
  return testing::CheckNative(
      comm, {.run = [&](const NativeRequest& r) { return comm.Native(r); },
             .refuses = &Refuses,
             .allocated = true});
}

class NcclWorldTest : public ::testing::TestWithParam<int> {};
INSTANTIATE_TEST_SUITE_P(Ranks, NcclWorldTest, ::testing::Values(1, 2, 3, 4));

TEST_P(NcclWorldTest, MatchesTheReference) {
  const auto world = Make(GetParam(), GetParam());
  ASSERT_TRUE(world.ok()) << world.status().ToString();
  const Status status = (*world)->Run([](const Communicator& comm) -> Status {
    SP_RETURN_IF_ERROR(CheckAll(comm));
    if (comm.size() < 3) return OkStatus();
    SP_ASSIGN_OR_RETURN(const Communicator half,
                        comm.Split(comm.rank() % 2, -comm.rank()));
    return CheckAll(half).WithContext("every second rank");
  });
  EXPECT_TRUE(status.ok()) << status.ToString();
}

NativeRequest AllReduce(const Buffer& data) {
  return {.primitive = "all_reduce",
          .send = data.data(),
          .recv = data.data(),
          .count = 16,
          .in_place = true};
}

// What each rank gets of one all_reduce.
std::vector<Status> Answers(ThreadWorld& world) {
  std::vector<Status> answers(static_cast<size_t>(world.ranks()));
  static_cast<void>(world.Run([&](const Communicator& comm) -> Status {
    SP_ASSIGN_OR_RETURN(const Buffer data, comm.Allocate(64));
    std::fill_n(data.as<float>(), 16, 1.0f);
    answers[static_cast<size_t>(comm.rank())] = comm.Native(AllReduce(data));
    return OkStatus();
  }));
  return answers;
}

TEST(SeveralRanksOnAGpuTest, AreRefusedWithWhatToDo) {
  const auto world = Make(3, 2);
  ASSERT_TRUE(world.ok());
  for (const Status& answer : Answers(**world)) {
    EXPECT_EQ(answer.code(), StatusCode::kUnsupported) << answer.ToString();
    EXPECT_THAT(std::string(answer.message()),
                HasSubstr("ranks 0 and 2 are both on one GPU, and NCCL 2.28.9 "
                          "takes one rank on each: run with at most 2 ranks"));
  }
  // The host's algorithms work, and so does a group with a rank on each.
  const Status status = (*world)->Run([](const Communicator& comm) -> Status {
    SP_ASSIGN_OR_RETURN(const Communicator two,
                        comm.Split(comm.rank() == 2 ? 1 : 0, 0));
    return two.Native({.primitive = "barrier"});
  });
  EXPECT_TRUE(status.ok()) << status.ToString();
}

TEST(SeveralRanksOnAGpuTest, NeedTheLibraryAndItsSwitch) {
  const auto world = Make(3, 2, testing::kHostNccl230);
  ASSERT_TRUE(world.ok()) << world.status().ToString();
  EXPECT_EQ(Answers(**world)[0].code(), StatusCode::kUnsupported);
  setenv("NCCL_MULTI_RANK_GPU_ENABLE", "1", 1);
  const auto enabled = Make(3, 2, testing::kHostNccl230);
  for (const Status& answer : Answers(**enabled)) {
    EXPECT_TRUE(answer.ok()) << answer.ToString();
  }
  const auto older = Make(3, 2);
  EXPECT_EQ(Answers(**older)[0].code(), StatusCode::kUnsupported);
  unsetenv("NCCL_MULTI_RANK_GPU_ENABLE");
}

TEST(NcclWorldFaultsTest, ALibraryForGpusTakesNoEmulatedOnes) {
  const auto world = Make(1, 1, testing::kHostNcclForGpus);
  EXPECT_EQ(world.status().code(), StatusCode::kUnavailable);
  EXPECT_THAT(std::string(world.status().message()),
              HasSubstr("libnccl_host_for_gpus.so works on GPUs only"));
}

TEST(NcclWorldFaultsTest, OrdinaryMemory) {
  const auto world = Make(2, 2);
  ASSERT_TRUE(world.ok());
  const Status status = (*world)->Run([](const Communicator& comm) -> Status {
    SP_ASSIGN_OR_RETURN(const Buffer data, AllocateOrdinary(64));
    const Status refused = comm.Native(AllReduce(data));
    if (refused.code() != StatusCode::kUnsupported) return refused;
    EXPECT_THAT(std::string(refused.message()), HasSubstr("ordinary memory"));
    return comm.Native({.primitive = "barrier"});
  });
  EXPECT_TRUE(status.ok()) << status.ToString();
}

TEST(NcclWorldFaultsTest, AnOperationThatHangs) {
  const testing::PlantedFault fault(testing::kHostNccl, "hangs ncclAllReduce",
                                    1);
  const auto world = Make(2, 2, testing::kHostNccl, std::chrono::seconds(1));
  ASSERT_TRUE(world.ok());
  const Status answer = Answers(**world)[1];
  EXPECT_EQ(answer.code(), StatusCode::kTimeout) << answer.ToString();
  EXPECT_THAT(std::string(answer.message()),
              HasSubstr("all_reduce by NCCL of 16 f32 on rank 1 of 2"));
  EXPECT_FALSE((*world)->healthy());
}

TEST(NcclWorldFaultsTest, AWrongResult) {
  const testing::PlantedFault fault(testing::kHostNccl, "wrong ncclAllReduce",
                                    1);
  const auto world = Make(2, 2);
  ASSERT_TRUE(world.ok());
  const Status status = (*world)->Run(&CheckAll);
  EXPECT_THAT(std::string(status.message()), HasSubstr("and should be"));
}

// One that never comes does not hold the others, once somebody aborts.
TEST(NcclWorldFaultsTest, AnAbort) {
  const auto world = Make(3, 3);
  ASSERT_TRUE(world.ok());
  const Status status = (*world)->Run([](const Communicator& comm) -> Status {
    const Status first = comm.Native({.primitive = "barrier"});
    if (comm.rank() == 0) {
      comm.Abort("rank 0 gave up");
      return first;
    }
    // Rank 0 may be gone before this one has seen the end of the first.
    const Status ended =
        first.ok() ? comm.Native({.primitive = "barrier"}) : first;
    return ended.code() == StatusCode::kAborted ? OkStatus() : ended;
  });
  EXPECT_TRUE(status.ok()) << status.ToString();
}

}  // namespace
}  // namespace shardproof
