// Every primitive by the kernels, launched on emulated GPUs, against the serial reference: one rank on each GPU,
// several, and groups whose ranks lie on GPUs in any order. And what is refused before anything is launched.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <string_view>
#include <tuple>
#include <vector>

#include "collectives/backend/cuda/device/cuda_world.h"
#include "collectives/backend/cuda/device/emulated_gpu.h"
#include "collectives/backend/cuda/device/kernel_request.h"
#include "collectives/testing/check.h"
#include "collectives/testing/native_check.h"

namespace shardproof::cuda {
namespace {

using ::testing::HasSubstr;

std::unique_ptr<ThreadWorld> MakeWorld(int ranks, int gpus,
                                       const CudaTuning& tuning = {}) {
  auto system = OpenEmulatedGpus({.count = gpus});
  EXPECT_TRUE(system.ok()) << system.status().ToString();
  auto world =
      CreateCudaWorld({.ranks = ranks, .gpus = *system, .tuning = tuning});
  EXPECT_TRUE(world.ok()) << world.status().ToString();
  return *std::move(world);
}

// What has no kernel.
bool Refuses(const NativeRequest& request) {
  const std::string_view name = request.primitive;
  return name.ends_with("_v") || name == "gather" || name == "scatter";
}

Status CheckAll(const Communicator& comm) {
  return testing::CheckNative(
      comm, {.run = [&](const NativeRequest& r) { return comm.Native(r); },
             .refuses = &Refuses,
             .allocated = true,
             .every = testing::EveryOfEnvironment()});
}

// Ranks, GPUs, and the bytes from which all_reduce takes two shots.
class CudaNativeTest
    : public ::testing::TestWithParam<std::tuple<int, int, int64_t>> {};

TEST_P(CudaNativeTest, MatchesTheReference) {
  const auto& [ranks, gpus, one_shot_bytes] = GetParam();
  // Small slots, so that the one-shot kernels need several.
  const auto world = MakeWorld(
      ranks, gpus, {.one_shot_bytes = one_shot_bytes, .slot_bytes = 512});
  const Status status = world->Run([](const Communicator& comm) -> Status {
    SP_RETURN_IF_ERROR(CheckAll(comm));
    if (comm.size() < 3) return OkStatus();
    // The odd ranks backwards, which on 2 GPUs are all on one.
    SP_ASSIGN_OR_RETURN(const Communicator half,
                        comm.Split(comm.rank() % 2, -comm.rank()));
    SP_RETURN_IF_ERROR(CheckAll(half).WithContext("every second rank"));
    // Ranks 0 to 2 in the order 1, 2, 0: of one GPU there are 2 and 0.
    SP_ASSIGN_OR_RETURN(
        const Communicator three,
        comm.Split(comm.rank() < 3 ? 0 : -1, (comm.rank() + 2) % 3));
    if (!three.valid()) return OkStatus();
    return CheckAll(three).WithContext("three ranks");
  });
  EXPECT_TRUE(status.ok()) << status.ToString();
}

INSTANTIATE_TEST_SUITE_P(
    , CudaNativeTest,
    ::testing::Values(std::tuple(1, 1, 1 << 20), std::tuple(2, 1, 1 << 20),
                      std::tuple(4, 1, 0), std::tuple(2, 2, 0),
                      std::tuple(3, 2, 1 << 20), std::tuple(4, 2, 256),
                      std::tuple(4, 4, 256), std::tuple(8, 2, 64)),
    [](const auto& info) {
      return fmt::format("{}ranks_{}gpus_{}", std::get<0>(info.param),
                         std::get<1>(info.param), std::get<2>(info.param));
    });

// A NativeRequest of one buffer of `count` f32 on every rank.
NativeRequest InPlace(std::string_view primitive, const Buffer& buffer,
                      int64_t count) {
  return {.primitive = primitive,
          .send = buffer.data(),
          .recv = buffer.data(),
          .count = count,
          .in_place = true};
}

Status Fill(const Buffer& buffer, int64_t count, float value) {
  std::fill_n(buffer.as<float>(), count, value);
  return OkStatus();
}

TEST(KernelRequestTest, ChoosesTheAllReduceBySize) {
  const auto gpus = OpenEmulatedGpus({}).value();
  const Buffer data = gpus->gpu(0).Allocate(1024).value();
  for (const auto& [name, count, primitive] :
       {std::tuple("all_reduce", 64, Primitive::kAllReduceOneShot),
        std::tuple("all_reduce", 65, Primitive::kAllReduceTwoShot),
        std::tuple("all_reduce_one_shot", 65, Primitive::kAllReduceOneShot),
        std::tuple("all_reduce_two_shot", 64, Primitive::kAllReduceTwoShot)}) {
    const std::vector<NativeRequest> requests(3, InPlace(name, data, count));
    const auto request = ToKernelRequest(requests, *gpus, 256);
    ASSERT_TRUE(request.ok()) << request.status().ToString();
    EXPECT_EQ(request->primitive, primitive) << name << " " << count;
  }
}

// Both by name, one after the other on the same flags.
TEST(CudaAllReduceTest, TakesTheKernelThatIsNamed) {
  const auto world = MakeWorld(3, 2);
  const Status status = world->Run([](const Communicator& comm) -> Status {
    constexpr int64_t kCount = 3000;
    SP_ASSIGN_OR_RETURN(const Buffer data, comm.Allocate(kCount * 4));
    for (int round = 0; round < 4; ++round) {
      SP_RETURN_IF_ERROR(Fill(data, kCount, 1));
      SP_RETURN_IF_ERROR(comm.Native(InPlace(
          round % 2 == 0 ? "all_reduce_one_shot" : "all_reduce_two_shot", data,
          kCount)));
      for (int64_t i = 0; i < kCount; ++i) {
        if (data.as<float>()[i] != 3) return Internal("element {}", i);
      }
    }
    return OkStatus();
  });
  EXPECT_TRUE(status.ok()) << status.ToString();
}

// A world and its parts have flags of their own: what one has counted is nothing to the other.
TEST(CudaGroupsTest, AreApart) {
  const auto world = MakeWorld(4, 2);
  const Status status = world->Run([](const Communicator& comm) -> Status {
    constexpr int64_t kCount = 100;
    SP_ASSIGN_OR_RETURN(const Buffer data, comm.Allocate(kCount * 4));
    for (int round = 0; round < 10; ++round) {
      SP_ASSIGN_OR_RETURN(const Communicator part,
                          comm.Split((comm.rank() + round) % 3, 0));
      for (const Communicator* c : {&comm, &part, &part}) {
        SP_RETURN_IF_ERROR(Fill(data, kCount, 2));
        SP_RETURN_IF_ERROR(c->Native(InPlace("all_reduce", data, kCount)));
        const auto want = static_cast<float>(2 * c->size());
        if (data.as<float>()[kCount - 1] != want) {
          return Internal("{} in round {}", data.as<float>()[0], round);
        }
      }
    }
    return OkStatus();
  });
  EXPECT_TRUE(status.ok()) << status.ToString();
}

struct Refusal {
  std::string_view name;
  StatusCode code;
  std::string_view words;
  // What rank `r` asks.
  void (*spoil)(NativeRequest& request, int rank);
};

class CudaRefusalTest : public ::testing::TestWithParam<Refusal> {};

// All ranks get the answer, nothing is launched, and the group goes on.
TEST_P(CudaRefusalTest, IsTheSameOnAllRanks) {
  const Refusal& refusal = GetParam();
  const auto world = MakeWorld(3, 2);
  const Status status = world->Run([&](const Communicator& comm) -> Status {
    constexpr int64_t kCount = 16;
    SP_ASSIGN_OR_RETURN(const Buffer data, comm.Allocate(kCount * 4 + 4));
    SP_RETURN_IF_ERROR(Fill(data, kCount, 1));
    NativeRequest request = InPlace("all_reduce", data, kCount);
    refusal.spoil(request, comm.rank());
    const Status refused = comm.Native(request);
    if (refused.code() != refusal.code ||
        refused.message().find(refusal.words) == std::string_view::npos) {
      return Internal("rank {}: {}", comm.rank(), refused.ToString());
    }
    if (data.as<float>()[0] != 1) return Internal("something was done");
    SP_RETURN_IF_ERROR(comm.Native(InPlace("all_reduce", data, kCount)));
    return data.as<float>()[0] == 3 ? OkStatus() : Internal("not a sum");
  });
  EXPECT_TRUE(status.ok()) << status.ToString();
}

// Memory that no GPU addresses.
alignas(16) float ordinary[32];

constexpr Refusal kRefusals[] = {
    {"Unknown", StatusCode::kUnsupported, "no kernel for sort",
     [](NativeRequest& r, int) { r.primitive = "sort"; }},
    {"OrdinaryMemory", StatusCode::kUnsupported,
     "the recv buffer of rank 1 is ordinary memory",
     [](NativeRequest& r, int rank) {
       if (rank == 1) r.recv = ordinary;
     }},
    {"Misaligned", StatusCode::kInvalidArgument,
     "the send buffer of rank 2 is not aligned",
     [](NativeRequest& r, int rank) {
       if (rank == 2) r.send = static_cast<const std::byte*>(r.send) + 2;
     }},
    {"OtherCount", StatusCode::kInvalidArgument,
     "ranks 0 and 1 do not ask the same",
     [](NativeRequest& r, int rank) { r.count -= rank; }},
    {"OtherPrimitive", StatusCode::kInvalidArgument,
     "ranks 0 and 2 do not ask the same",
     [](NativeRequest& r, int rank) {
       if (rank == 2) r.primitive = "all_gather";
     }},
    {"OtherOp", StatusCode::kInvalidArgument,
     "ranks 0 and 1 do not ask the same",
     [](NativeRequest& r, int rank) {
       if (rank == 1) r.op = ReduceOp::kMax;
     }},
    {"NegativeCount", StatusCode::kInvalidArgument, "a count of -1",
     [](NativeRequest& r, int) { r.count = -1; }},
    {"Root", StatusCode::kInvalidArgument, "root 3 among 3 ranks",
     [](NativeRequest& r, int) { r.root = 3; }},
    {"Partner", StatusCode::kInvalidArgument, "send_recv to rank 3",
     [](NativeRequest& r, int) {
       r.primitive = "send_recv";
       r.destination = 3;
     }},
    {"TwoSenders", StatusCode::kInvalidArgument,
     "rank 1 sends to rank 2, which receives from rank 0",
     [](NativeRequest& r, int rank) {
       r.primitive = "send_recv";
       r.destination = rank == 2 ? -1 : 2;
       r.source = rank == 2 ? 0 : -1;
     }},
    {"NoSender", StatusCode::kInvalidArgument,
     "rank 1 receives from rank 0, which sends to rank -1",
     [](NativeRequest& r, int rank) {
       r.primitive = "send_recv";
       r.source = rank == 1 ? 0 : -1;
     }},
};

INSTANTIATE_TEST_SUITE_P(, CudaRefusalTest, ::testing::ValuesIn(kRefusals),
                         [](const auto& info) {
                           return std::string(info.param.name);
                         });

TEST(CudaRanksTest, AreLimited) {
  const auto world = MakeWorld(17, 1);
  const Status status = world->Run([](const Communicator& comm) -> Status {
    const Status refused = comm.Native({.primitive = "barrier"});
    if (refused.code() != StatusCode::kUnsupported) return refused;
    EXPECT_THAT(std::string(refused.message()), HasSubstr("up to 16 ranks"));
    return comm.Barrier();
  });
  EXPECT_TRUE(status.ok()) << status.ToString();
}

}  // namespace
}  // namespace shardproof::cuda
