// The unique id reaches every rank, over a communicator and by a file; and what
// is wrong on one rank becomes the answer of all.
#include "collectives/backend/nccl/nccl_bootstrap.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <chrono>
#include <cstdio>
#include <fstream>
#include <functional>
#include <future>
#include <sstream>
#include <string>
#include <thread>
#include <vector>

#include "collectives/backend/nccl/nccl_collectives.h"
#include "collectives/backend/nccl/testing/host_device.h"
#include "collectives/backend/thread/thread_world.h"

namespace shardproof {
namespace {

using ::testing::HasSubstr;
using testing::kHostNccl;
using testing::kHostNccl219;
using testing::PlantedFault;

using Answer = StatusOr<nccl::UniqueId>;
constexpr std::chrono::milliseconds kShort(50);

std::vector<Answer> OnThreads(int ranks,
                              const std::function<Answer(int rank)>& body) {
  std::vector<Answer> answers(static_cast<size_t>(ranks), Internal("not run"));
  std::vector<std::thread> threads;
  for (int r = 0; r < ranks; ++r) {
    threads.emplace_back([&, r] { answers[static_cast<size_t>(r)] = body(r); });
  }
  for (std::thread& thread : threads) thread.join();
  return answers;
}

std::vector<Answer> OverCommunicator(
    int ranks, const std::function<std::string(int rank)>& path) {
  std::vector<Answer> answers(static_cast<size_t>(ranks), Internal("not run"));
  const Status status = RunThreads(ranks, [&](const Communicator& comm) {
    answers[static_cast<size_t>(comm.rank())] =
        AgreeOnNcclId(comm, NcclLibrary::Load(path(comm.rank())));
    return OkStatus();
  });
  EXPECT_TRUE(status.ok()) << status.ToString();
  return answers;
}

std::vector<Answer> ByFile(const std::string& file, int ranks,
                           const std::function<std::string(int rank)>& path) {
  return OnThreads(ranks, [&](int rank) {
    return MeetAtFile({.path = file, .rank = rank, .ranks = ranks},
                      NcclLibrary::Load(path(rank)));
  });
}

std::string Same(int /*rank*/) { return kHostNccl; }

void ExpectOneId(const std::vector<Answer>& answers) {
  for (const Answer& answer : answers) {
    ASSERT_TRUE(answer.ok()) << answer.status().ToString();
    EXPECT_EQ(answer->internal, answers.front()->internal);
    EXPECT_EQ(answer->internal.back(), '\x81');  // All of it.
  }
}

void ExpectError(const std::vector<Answer>& answers, const std::string& words) {
  for (const Answer& answer : answers) {
    EXPECT_EQ(answer.status().code(), StatusCode::kUnavailable);
    EXPECT_THAT(std::string(answer.status().message()), HasSubstr(words));
    EXPECT_EQ(answer.status().ToString(), answers.front().status().ToString());
  }
}

std::string RendezvousPath(const std::string& name) {
  const std::string path = ::testing::TempDir() + "/rendezvous_" + name;
  for (const char* end : {"", ".1", ".2", ".3", ".4"}) {
    std::remove((path + end).c_str());
  }
  return path;
}

std::string Contents(const std::string& path) {
  std::ostringstream text;
  text << std::ifstream(path).rdbuf();
  return text.str();
}

// Both ways to meet.
struct Way {
  std::string name;
  std::function<std::vector<Answer>(
      int ranks, const std::function<std::string(int rank)>& path)>
      meet;
};

class NcclBootstrapTest : public ::testing::TestWithParam<Way> {};

TEST_P(NcclBootstrapTest, EveryRankGetsTheId) {
  for (const int ranks : {1, 2, 3, 5}) {
    ExpectOneId(GetParam().meet(ranks, Same));
  }
}

TEST_P(NcclBootstrapTest, ARankWithoutLibraryIsTheAnswerOfAll) {
  ExpectError(GetParam().meet(3,
                              [](int rank) {
                                return rank == 1 ? "/nowhere/libnccl.so.2"
                                                 : kHostNccl;
                              }),
              "rank 1: the NCCL library /nowhere/libnccl.so.2 cannot be "
              "loaded");
}

TEST_P(NcclBootstrapTest, AnotherVersionIsTheAnswerOfAll) {
  ExpectError(
      GetParam().meet(
          3, [](int rank) { return rank == 2 ? kHostNccl219 : kHostNccl; }),
      "rank 2 has NCCL 2.19.3, and rank 0 has 2.28.9");
}

TEST_P(NcclBootstrapTest, ARankZeroWithoutIdIsTheAnswerOfAll) {
  const PlantedFault fault(kHostNccl, "no_id", 0);
  ExpectError(GetParam().meet(3, Same),
              "rank 0: ncclGetUniqueId: unhandled cuda error: no device is "
              "planted here");
}

INSTANTIATE_TEST_SUITE_P(
    , NcclBootstrapTest,
    ::testing::Values(Way{"Communicator", OverCommunicator},
                      Way{"File",
                          [](int ranks,
                             const std::function<std::string(int rank)>& path) {
                            return ByFile(RendezvousPath("both"), ranks, path);
                          }}),
    [](const auto& info) { return info.param.name; });

TEST(RendezvousFileTest, APathMayBeUsedAgain) {
  const std::string path = RendezvousPath("again");
  const auto first = ByFile(path, 3, Same);
  ExpectOneId(first);
  const auto second = ByFile(path, 3, Same);
  ExpectOneId(second);
  EXPECT_NE(first[0]->internal, second[0]->internal);
  // The files of the ranks are gone.
  EXPECT_EQ(Contents(path + ".1"), "");
}

TEST(RendezvousFileTest, WhatAnotherRunLeftIsNotTaken) {
  const std::string path = RendezvousPath("stale");
  ExpectOneId(ByFile(path, 2, Same));
  const std::string old = Contents(path);
  ASSERT_EQ(old.substr(0, 3), "go\n");
  // A rank of a run that broke off: it had seen rank 0 of that run.
  std::ofstream(path + ".1") << "0123456789abcdef\nready 2.28.9\n"
                             << "fedcba9876543210\n";
  // Rank 1 alone: there is an answer with "go", but not to its nonce.
  const auto alone =
      MeetAtFile({.path = path, .rank = 1, .ranks = 2, .timeout = kShort},
                 NcclLibrary::Load(kHostNccl));
  EXPECT_EQ(alone.status().code(), StatusCode::kTimeout);
  EXPECT_THAT(std::string(alone.status().message()),
              HasSubstr("rank 1 waited 50 ms for rank 0: the file there is of "
                        "another run"));
  // Rank 0 alone: there is a rank 1, but it does not answer.
  std::ofstream(path + ".1") << "0123456789abcdef\nready 2.28.9\n"
                             << "fedcba9876543210\n";
  const auto host_alone =
      MeetAtFile({.path = path, .rank = 0, .ranks = 2, .timeout = kShort},
                 NcclLibrary::Load(kHostNccl));
  EXPECT_EQ(host_alone.status().code(), StatusCode::kTimeout);
  EXPECT_THAT(std::string(host_alone.status().message()),
              HasSubstr("1 of 2 ranks did not come within 50 ms: 1"));
  // Both, with the remains of both; rank 0 has answered to what is left of the
  // other rank 1 before the right one comes.
  std::ofstream(path) << old;
  const auto meet = [&](int rank) {
    return MeetAtFile({.path = path, .rank = rank, .ranks = 2},
                      NcclLibrary::Load(kHostNccl));
  };
  std::future<Answer> zero = std::async(std::launch::async, meet, 0);
  while (Contents(path).find("0123456789abcdef") == std::string::npos &&
         zero.wait_for(std::chrono::milliseconds(1)) !=
             std::future_status::ready) {
  }
  const Answer one = meet(1);
  ExpectOneId({zero.get(), one});
}

TEST(RendezvousFileTest, NamesTheRanksThatDoNotCome) {
  const std::string path = RendezvousPath("absent");
  const auto answers = OnThreads(3, [&](int rank) -> Answer {
    if (rank == 2) return Internal("stays away");
    return MeetAtFile(
        {.path = path,
         .rank = rank,
         .ranks = 3,
         // Rank 0 ends first, and tells rank 1.
         .timeout = rank == 0 ? kShort : std::chrono::seconds(60)},
        NcclLibrary::Load(kHostNccl));
  });
  EXPECT_EQ(answers[0].status().code(), StatusCode::kTimeout);
  EXPECT_THAT(std::string(answers[1].status().message()),
              HasSubstr("ranks did not come within 50 ms: "));
}

TEST(RendezvousFileTest, SaysWhereItCannotWrite) {
  const auto answers = ByFile("/nowhere/rendezvous", 2, Same);
  for (const Answer& answer : answers) {
    EXPECT_EQ(answer.status().code(), StatusCode::kUnavailable);
    EXPECT_THAT(std::string(answer.status().message()),
                HasSubstr("cannot be written: No such file"));
  }
}

TEST(RendezvousFileTest, RefusesARankThatIsNone) {
  const auto library = NcclLibrary::Load(kHostNccl);
  for (const RendezvousFile& file :
       {RendezvousFile{.path = ""}, RendezvousFile{.path = "x", .rank = 1},
        RendezvousFile{.path = "x", .rank = -1},
        RendezvousFile{.path = "x", .ranks = 0}}) {
    EXPECT_EQ(MeetAtFile(file, library).status().code(),
              StatusCode::kInvalidArgument);
  }
}

// The whole way without a communicator of ours.
TEST(RendezvousFileTest, LeadsToACommunicator) {
  const std::string path = RendezvousPath("whole");
  std::vector<int32_t> sums(3);
  const auto answers = OnThreads(3, [&](int rank) -> Answer {
    const NcclLibraryHere library = NcclLibrary::Load(kHostNccl);
    SP_ASSIGN_OR_RETURN(
        const nccl::UniqueId id,
        MeetAtFile({.path = path, .rank = rank, .ranks = 3}, library));
    SP_ASSIGN_OR_RETURN(const auto device,
                        testing::HostDevice::Create(kHostNccl));
    SP_ASSIGN_OR_RETURN(const auto comm,
                        NcclCommunicator::Create(*library, id, *device,
                                                 {.rank = rank, .ranks = 3}));
    const int32_t mine = 1 << rank;
    SP_RETURN_IF_ERROR(RunNcclNative(*comm,
                                     {.primitive = "all_reduce",
                                      .send = &mine,
                                      .recv = &sums[static_cast<size_t>(rank)],
                                      .count = 1,
                                      .dtype = DType::kI32},
                                     device->stream()));
    return id;
  });
  ExpectOneId(answers);
  EXPECT_THAT(sums, ::testing::ElementsAre(7, 7, 7));
}

}  // namespace
}  // namespace shardproof
