// Ranks in processes of their own, by the library for tests: every primitive with
// several ranks on one emulated GPU, and what becomes of processes that fail.
//
// The process of a rank is this program again: see main.
#include "collectives/backend/nccl/process/rank_process.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>  // kill. NOLINT(modernize-deprecated-headers)
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <functional>
#include <future>
#include <iterator>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "collectives/backend/cuda/device/emulated_gpu.h"
#include "collectives/backend/nccl/nccl_bootstrap.h"
#include "collectives/backend/nccl/nccl_world.h"
#include "collectives/backend/nccl/process/rank_server.h"
#include "collectives/backend/nccl/testing/host_device.h"
#include "collectives/backend/thread/thread_world.h"
#include "collectives/testing/native_check.h"

namespace shardproof {
namespace {

using std::chrono::milliseconds;
using ::testing::AllOf;
using ::testing::HasSubstr;
using testing::kHostNccl;

const std::vector<std::string> kCommand = {"/proc/self/exe", kNcclRankCommand};
// For what must end in time: no test passes because of it.
constexpr milliseconds kLong = std::chrono::seconds(60);

// --- Worlds -------------------------------------------------------------------

struct Sharing {
  int ranks, gpus;
};

class SeveralRanksOnAGpuTest : public ::testing::TestWithParam<Sharing> {};
INSTANTIATE_TEST_SUITE_P(, SeveralRanksOnAGpuTest,
                         ::testing::Values(Sharing{2, 1}, Sharing{3, 1},
                                           Sharing{3, 2}),
                         [](const auto& info) {
                           return std::to_string(info.param.ranks) + "On" +
                                  std::to_string(info.param.gpus);
                         });

StatusOr<std::unique_ptr<ThreadWorld>> MakeWorld(const Sharing& sharing) {
  SP_ASSIGN_OR_RETURN(auto gpus,
                      cuda::OpenEmulatedGpus({.count = sharing.gpus}));
  SP_ASSIGN_OR_RETURN(auto library, NcclLibrary::Load(kHostNccl));
  return CreateNcclWorld({.ranks = sharing.ranks,
                          .gpus = gpus,
                          .library = library,
                          .rank_command = kCommand});
}

Status CheckAll(const Communicator& comm) {
  return testing::CheckNative(
      comm,
      {.run = [&](const NativeRequest& r) { return comm.Native(r); },
       .refuses =
           [](const NativeRequest& r) {
             return r.in_place && r.count > 0 &&
                    (r.primitive == "all_to_all" || r.primitive == "send_recv");
           },
       .allocated = true,
       .every = testing::EveryOfEnvironment()});
}

TEST_P(SeveralRanksOnAGpuTest, MatchTheReference) {
  const auto world = MakeWorld(GetParam());
  ASSERT_TRUE(world.ok()) << world.status().ToString();
  const Status status = (*world)->Run([](const Communicator& comm) -> Status {
    SP_RETURN_IF_ERROR(CheckAll(comm));
    if (comm.size() < 3) return OkStatus();
    // Ranks 0 and 2, in the other order; rank 1 alone, and in this process.
    SP_ASSIGN_OR_RETURN(const Communicator half,
                        comm.Split(comm.rank() % 2, -comm.rank()));
    return CheckAll(half).WithContext("every second rank");
  });
  EXPECT_TRUE(status.ok()) << status.ToString();
}

// What is refused is refused in the same words as in one process.
TEST_P(SeveralRanksOnAGpuTest, RefuseWhatCannotBe) {
  const auto world = MakeWorld(GetParam());
  ASSERT_TRUE(world.ok()) << world.status().ToString();
  const Status status = (*world)->Run([](const Communicator& comm) -> Status {
    const std::vector<int64_t> more(static_cast<size_t>(comm.size()) + 1, 1);
    const std::pair<NativeRequest, std::string> wrong[] = {
        {{.primitive = "sort"}, "unsupported: NCCL has no sort"},
        {{.primitive = "broadcast", .count = -1},
         "invalid argument: a count of -1"},
        {{.primitive = "broadcast", .root = comm.size()},
         "invalid argument: root"},
        {{.primitive = "all_gather_v", .recv_counts = more},
         "invalid argument: all_gather_v needs"},
    };
    for (const auto& [request, words] : wrong) {
      EXPECT_THAT(comm.Native(request).ToString(), HasSubstr(words));
    }
    return comm.Native({.primitive = "barrier"});
  });
  EXPECT_TRUE(status.ok()) << status.ToString();
}

// --- One process and its owner ------------------------------------------------

class Variable {
 public:
  Variable(const char* name, const std::string& value) : name_(name) {
    setenv(name, value.c_str(), 1);
  }
  ~Variable() { unsetenv(name_); }
  Variable(const Variable&) = delete;
  Variable& operator=(const Variable&) = delete;

 private:
  const char* const name_;
};

// A fault of host_nccl.h, in the processes that start from now on.
class PlantedElsewhere : Variable {
 public:
  explicit PlantedElsewhere(const std::string& fault)
      : Variable("HOST_NCCL_PLANT", fault) {}
};

NcclRankOptions OptionsOf(const Communicator& comm,
                          milliseconds timeout = kLong) {
  return {.command = kCommand,
          .setup = {.library = kHostNccl,
                    .emulated_gpus = 1,
                    .rank = comm.rank(),
                    .ranks = comm.size(),
                    .timeout = timeout},
          .control = &comm};
}

using Rank = std::unique_ptr<NcclRankProcess>;

StatusOr<Rank> Open(const NcclRankOptions& options) {
  SP_ASSIGN_OR_RETURN(Rank rank, NcclRankProcess::Start(options));
  SP_ASSIGN_OR_RETURN(
      const nccl::UniqueId id,
      AgreeOnNcclId(*options.control, rank->version(),
                    [&]() -> StatusOr<nccl::UniqueId> { return rank->id(); }));
  SP_RETURN_IF_ERROR(rank->Join(id));
  return rank;
}

Status AllReduce(NcclRankProcess& rank, int ranks) {
  const float in[3] = {1, 2, 3};
  float out[3] = {};
  SP_RETURN_IF_ERROR(rank.Run({.primitive = "all_reduce",
                               .send = in,
                               .recv = out,
                               .count = 3,
                               .dtype = DType::kF32}));
  const auto sum = static_cast<float>(ranks);
  return out[0] == sum && out[2] == 3 * sum ? OkStatus()
                                            : Internal("not a sum");
}

// What each of `ranks` threads got from `rank_main`. Afterwards this process has
// no children: each has ended and is no zombie.
std::vector<Status> OnEachRank(
    int ranks, const std::function<Status(const Communicator&)>& rank_main) {
  std::vector<Status> statuses(static_cast<size_t>(ranks));
  EXPECT_TRUE(RunThreads(ranks, [&](const Communicator& comm) {
                statuses[static_cast<size_t>(comm.rank())] = rank_main(comm);
                return OkStatus();
              }).ok());
  EXPECT_EQ(waitpid(-1, nullptr, WNOHANG), -1);
  EXPECT_EQ(errno, ECHILD);
  return statuses;
}

std::vector<Status> OpenAndReduce(int ranks, milliseconds timeout = kLong) {
  return OnEachRank(ranks, [=](const Communicator& comm) -> Status {
    SP_ASSIGN_OR_RETURN(const Rank rank, Open(OptionsOf(comm, timeout)));
    return AllReduce(*rank, comm.size());
  });
}

std::string EnvironmentOf(pid_t process) {
  std::ifstream in("/proc/" + std::to_string(process) + "/environ");
  return {std::istreambuf_iterator<char>(in), {}};
}

TEST(RankProcessTest, IsOfAnotherHostAndHasNoOtherFiles) {
  const Variable theirs("NCCL_MAX_CTAS", "2");
  // One that does not close itself.
  constexpr int kOther = 77;
  ASSERT_EQ(dup2(STDERR_FILENO, kOther), kOther);
  const auto statuses = OnEachRank(2, [&](const Communicator& comm) -> Status {
    SP_ASSIGN_OR_RETURN(const Rank rank, Open(OptionsOf(comm)));
    const std::string environment = EnvironmentOf(rank->pid());
    const std::string host = "NCCL_HOSTID=shardproof-" +
                             std::to_string(getpid()) + "-" +
                             std::to_string(comm.rank());
    EXPECT_THAT(
        environment,
        AllOf(HasSubstr(host), HasSubstr("NCCL_NET=Socket"),
              HasSubstr("NCCL_SOCKET_IFNAME=lo"),
              HasSubstr("NCCL_IB_DISABLE=1"), HasSubstr("NCCL_RAS_ENABLE=0"),
              HasSubstr("NCCL_MAX_CTAS=2")));
    const std::string files = "/proc/" + std::to_string(rank->pid()) + "/fd/";
    EXPECT_EQ(access((files + "3").c_str(), F_OK), 0);
    EXPECT_NE(access((files + std::to_string(kOther)).c_str(), F_OK), 0);
    return AllReduce(*rank, comm.size());
  });
  close(kOther);
  for (const Status& status : statuses) {
    EXPECT_TRUE(status.ok()) << status.ToString();
  }
}

TEST(RankProcessTest, WhatIsWrittenBesideTheResultIsFound) {
  const PlantedElsewhere fault("1 beside ncclAllReduce");
  const auto statuses = OpenAndReduce(2);
  EXPECT_EQ(statuses[1].code(), StatusCode::kDataLoss);
  EXPECT_THAT(std::string(statuses[1].message()),
              HasSubstr("all_reduce of 3 f32 on rank 1 of 2: the library wrote "
                        "beside what it receives"));
}

// --- Processes that fail ------------------------------------------------------

TEST(RankProcessFaultsTest, AProgramThatIsNotThere) {
  const auto statuses = OnEachRank(1, [](const Communicator& comm) {
    NcclRankOptions options = OptionsOf(comm);
    options.command = {"/nowhere"};
    return Open(options).status();
  });
  EXPECT_EQ(statuses[0].ToString(),
            "unavailable: cannot start /nowhere: No such file or directory");
}

TEST(RankProcessFaultsTest, AProgramThatServesNoRank) {
  const auto statuses = OnEachRank(1, [](const Communicator& comm) {
    NcclRankOptions options = OptionsOf(comm);
    options.command = {"/bin/false"};
    return Open(options).status();
  });
  EXPECT_EQ(statuses[0].ToString(),
            "unavailable: the start by the process of rank 0 of 1: it ended "
            "with exit status 1");
}

TEST(RankProcessFaultsTest, ALibraryThatIsNotThere) {
  const auto statuses = OnEachRank(2, [](const Communicator& comm) {
    NcclRankOptions options = OptionsOf(comm);
    if (comm.rank() == 1) options.setup.library = "/nowhere.so";
    const StatusOr<Rank> started = NcclRankProcess::Start(options);
    const auto version = [&]() -> StatusOr<int> {
      if (!started.ok()) return started.status();
      return (*started)->version();
    };
    return AgreeOnNcclId(
               comm, version(),
               [&]() -> StatusOr<nccl::UniqueId> { return (*started)->id(); })
        .status();
  });
  for (const Status& status : statuses) {
    EXPECT_EQ(status.code(), StatusCode::kUnavailable);
    EXPECT_THAT(
        std::string(status.message()),
        HasSubstr("rank 1: the NCCL library /nowhere.so cannot be loaded"));
  }
}

TEST(RankProcessFaultsTest, AnInitThatFails) {
  const PlantedElsewhere fault("1 init_fails");
  const auto statuses = OpenAndReduce(2);
  const std::string why =
      "ncclCommInitRankConfig on rank 1 of 2: unhandled system error: no "
      "socket is planted here";
  EXPECT_EQ(statuses[1].ToString(), "unavailable: " + why);
  EXPECT_EQ(statuses[0].code(), StatusCode::kAborted);
  EXPECT_THAT(std::string(statuses[0].message()),
              AllOf(HasSubstr("the init by the process of rank 0 of 2, ended "
                              "by another rank"),
                    HasSubstr(why)));
}

TEST(RankProcessFaultsTest, ACallThatFails) {
  const PlantedElsewhere fault("1 refuses ncclAllReduce");
  const auto statuses = OpenAndReduce(2);
  EXPECT_EQ(statuses[1].ToString(),
            "internal error: all_reduce by ncclAllReduce of 3 f32 on rank 1 of "
            "2: invalid usage: ncclAllReduce was told to refuse");
  EXPECT_EQ(statuses[0].code(), StatusCode::kAborted);
  EXPECT_THAT(std::string(statuses[0].message()),
              HasSubstr("ncclAllReduce was told to refuse"));
}

TEST(RankProcessFaultsTest, ACallThatHangs) {
  const PlantedElsewhere fault("1 hangs ncclAllReduce");
  const auto statuses = OpenAndReduce(2, milliseconds(2000));
  EXPECT_EQ(statuses[1].code(), StatusCode::kTimeout);
  EXPECT_THAT(
      std::string(statuses[1].message()),
      HasSubstr("all_reduce by NCCL of 3 f32 on rank 1 of 2 did not "
                "end within 2000 ms, and the communicator was aborted"));
}

// The library cannot say anything then.
TEST(RankProcessFaultsTest, AProcessThatStops) {
  const auto statuses = OnEachRank(1, [](const Communicator& comm) -> Status {
    NcclRankOptions options = OptionsOf(comm, milliseconds(2000));
    options.grace = milliseconds(100);
    SP_ASSIGN_OR_RETURN(const Rank rank, Open(options));
    kill(rank->pid(), SIGSTOP);
    const Status status = AllReduce(*rank, comm.size());
    EXPECT_EQ(rank->pid(), 0);
    EXPECT_EQ(AllReduce(*rank, comm.size()).ToString(), status.ToString());
    return status;
  });
  EXPECT_EQ(statuses[0].ToString(),
            "timeout: all_reduce of 3 f32 by the process of rank 0 of 1 did "
            "not end within 2100 ms, and it was killed");
}

TEST(RankProcessFaultsTest, AProcessThatDiesBeforeACall) {
  const auto statuses = OnEachRank(2, [](const Communicator& comm) -> Status {
    SP_ASSIGN_OR_RETURN(const Rank rank, Open(OptionsOf(comm)));
    if (comm.rank() == 1) kill(rank->pid(), SIGKILL);
    return AllReduce(*rank, comm.size());
  });
  const std::string why =
      "all_reduce of 3 f32 by the process of rank 1 of 2: it was killed by "
      "signal 9 (Killed)";
  EXPECT_EQ(statuses[1].ToString(), "unavailable: " + why);
  EXPECT_EQ(statuses[0].code(), StatusCode::kAborted);
  EXPECT_THAT(std::string(statuses[0].message()), HasSubstr(why));
}

TEST(RankProcessFaultsTest, AProcessThatDiesInACall) {
  for (const auto& [fault, how] :
       {std::pair("1 killed ncclAllReduce", "was killed by signal 9 (Killed)"),
        std::pair("1 exits ncclAllReduce", "ended with exit status 3")}) {
    const PlantedElsewhere planted(fault);
    const auto statuses = OpenAndReduce(3);
    EXPECT_EQ(statuses[1].ToString(),
              std::string("unavailable: all_reduce of 3 f32 by the process of "
                          "rank 1 of 3: it ") +
                  how);
    for (const int r : {0, 2}) {
      EXPECT_EQ(statuses[r].code(), StatusCode::kAborted);
      EXPECT_THAT(std::string(statuses[r].message()), HasSubstr(how));
    }
  }
}

TEST(RankProcessFaultsTest, AWorldThatIsAbortedEndsTheProcesses) {
  std::promise<void> begun;
  const auto statuses = OnEachRank(2, [&](const Communicator& comm) -> Status {
    SP_ASSIGN_OR_RETURN(const Rank rank, Open(OptionsOf(comm)));
    if (comm.rank() == 1) {
      begun.get_future().wait();
      comm.Abort("enough");
      return OkStatus();
    }
    const pid_t process = rank->pid();
    begun.set_value();
    const Status status = AllReduce(*rank, comm.size());
    EXPECT_EQ(kill(process, 0), -1);
    return status;
  });
  EXPECT_EQ(statuses[0].code(), StatusCode::kAborted);
  EXPECT_THAT(std::string(statuses[0].message()),
              AllOf(HasSubstr("all_reduce of 3 f32 by the process of rank 0 of "
                              "2, ended by another rank"),
                    HasSubstr("enough")));
}

// --- Owners that end ----------------------------------------------------------

// A program that starts a rank, prints its process and is gone: while that waits
// for a call, or in the middle of one.
int Orphan(bool in_a_call) {
  if (in_a_call) setenv("HOST_NCCL_PLANT", "0 hangs ncclAllReduce", 1);
  static_cast<void>(RunThreads(1, [=](const Communicator& comm) -> Status {
    SP_ASSIGN_OR_RETURN(const Rank rank, Open(OptionsOf(comm)));
    std::printf("%d\n", rank->pid());
    std::fflush(stdout);
    if (!in_a_call) _exit(0);
    std::thread([] {
      std::this_thread::sleep_for(milliseconds(200));
      _exit(0);
    }).detach();
    return AllReduce(*rank, comm.size());
  }));
  return 1;
}

// A zombie has ended too: whoever inherits orphans may not wait for them.
bool HasEnded(pid_t process) {
  std::ifstream in("/proc/" + std::to_string(process) + "/stat");
  std::string number, name, state;
  in >> number >> name >> state;
  return !in || state == "Z" || state == "X";
}

TEST(RankProcessFaultsTest, AnOwnerThatDiesEndsTheProcess) {
  for (const std::string argument : {"--orphan", "--orphan-in-a-call"}) {
    // NOLINTNEXTLINE(bugprone-command-processor): it is this program.
    std::FILE* const out = popen(
        ("exec /proc/" + std::to_string(getpid()) + "/exe " + argument).c_str(),
        "r");
    ASSERT_NE(out, nullptr);
    std::array<char, 32> line;
    ASSERT_NE(std::fgets(line.data(), line.size(), out), nullptr);
    const pid_t process = std::stoi(line.data());
    EXPECT_EQ(pclose(out), 0);
    for (int i = 0; i < 1000 && !HasEnded(process); ++i) {
      std::this_thread::sleep_for(milliseconds(10));
    }
    EXPECT_TRUE(HasEnded(process)) << argument;
    if (!HasEnded(process)) kill(process, SIGKILL);
  }
}

TEST(RankServerTest, IsNotForPeople) {
  const Status status = ServeNcclRank(nullptr);
  EXPECT_EQ(status.code(), StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(status.message()), HasSubstr("not for people"));
}

}  // namespace

int Main(int argc, char** argv) {
  const std::string command = argc > 1 ? argv[1] : "";
  if (command == kNcclRankCommand) {
    const Status served = ServeNcclRank([](int emulated) {
      return cuda::OpenEmulatedGpus({.count = emulated});
    });
    return served.ok() ? 0 : 2;
  }
  if (command.starts_with("--orphan")) return Orphan(command != "--orphan");
  ::testing::InitGoogleTest(&argc, argv);
  return RUN_ALL_TESTS();
}

}  // namespace shardproof

int main(int argc, char** argv) { return shardproof::Main(argc, argv); }
