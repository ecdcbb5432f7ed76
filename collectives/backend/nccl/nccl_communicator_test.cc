// Communicators that fail: every rank gets an error that says what, where and
// why, none waits for ever, and the world of the control ends with it.
#include "collectives/backend/nccl/nccl_communicator.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <chrono>
#include <functional>
#include <future>
#include <string>
#include <vector>

#include "collectives/backend/nccl/nccl_collectives.h"
#include "collectives/backend/nccl/testing/host_device.h"
#include "collectives/backend/thread/thread_world.h"

namespace shardproof {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using testing::HostRank;
using testing::kHostNccl;
using testing::OpenHostNccl;
using testing::PlantedFault;

// For what must end in time: no test passes because of it.
constexpr std::chrono::milliseconds kLong = std::chrono::seconds(60);
// For what never ends by itself.
constexpr std::chrono::milliseconds kShort(50);

// What each of `ranks` threads got from `rank_main`.
std::vector<Status> OnEachRank(
    int ranks, const std::function<Status(const Communicator&)>& rank_main) {
  std::vector<Status> statuses(static_cast<size_t>(ranks));
  // The world learns of no error but through what is under test.
  const Status status = RunThreads(ranks, [&](const Communicator& comm) {
    statuses[static_cast<size_t>(comm.rank())] = rank_main(comm);
    return OkStatus();
  });
  EXPECT_TRUE(status.ok()) << status.ToString();
  return statuses;
}

// An all_reduce of three floats.
struct ThreeFloats {
  float in[3] = {1, 2, 3};
  float out[3] = {};

  Status AllReduce(const HostRank& host) {
    return RunNcclNative(*host.nccl,
                         {.primitive = "all_reduce",
                          .send = in,
                          .recv = out,
                          .count = 3,
                          .dtype = DType::kF32},
                         host.device->stream());
  }
};

Status OpenAndReduce(const Communicator& comm,
                     std::chrono::milliseconds timeout, bool control) {
  SP_ASSIGN_OR_RETURN(const HostRank host,
                      OpenHostNccl(comm, kHostNccl, timeout, control));
  ThreeFloats data;
  return data.AllReduce(host);
}

TEST(NcclCommunicatorTest, InitThatFailsOnOneRankReachesAll) {
  const PlantedFault fault(kHostNccl, "init_fails", 1);
  const auto statuses = OnEachRank(3, [](const Communicator& comm) {
    return OpenHostNccl(comm, kHostNccl, kLong).status();
  });
  const std::string why =
      "ncclCommInitRankConfig on rank 1 of 3: unhandled system error: no "
      "socket is planted here";
  EXPECT_EQ(statuses[1].code(), StatusCode::kUnavailable);
  EXPECT_EQ(statuses[1].message(), why);
  for (const int r : {0, 2}) {
    EXPECT_EQ(statuses[r].code(), StatusCode::kAborted);
    EXPECT_THAT(std::string(statuses[r].message()), HasSubstr(why));
  }
}

TEST(NcclCommunicatorTest, WithoutControlInitEndsAtTheDeadline) {
  const PlantedFault fault(kHostNccl, "init_fails", 1);
  const auto statuses = OnEachRank(2, [](const Communicator& comm) {
    return OpenHostNccl(comm, kHostNccl, kShort, false).status();
  });
  EXPECT_EQ(statuses[0].code(), StatusCode::kTimeout);
  EXPECT_THAT(std::string(statuses[0].message()),
              HasSubstr("ncclCommInitRankConfig on rank 0 of 2 did not end "
                        "within 50 ms"));
  EXPECT_EQ(statuses[1].code(), StatusCode::kUnavailable);
}

TEST(NcclCommunicatorTest, AnAllReduceThatHangsIsAborted) {
  const PlantedFault fault(kHostNccl, "hangs ncclAllReduce", 1);
  const auto statuses = OnEachRank(3, [](const Communicator& comm) {
    return OpenAndReduce(comm, kShort, true);
  });
  EXPECT_EQ(statuses[1].code(), StatusCode::kTimeout);
  EXPECT_THAT(std::string(statuses[1].message()),
              AllOf(HasSubstr("all_reduce by NCCL of 3 f32 on rank 1 of 3 did "
                              "not end within 50 ms"),
                    HasSubstr("the communicator was aborted")));
}

TEST(NcclCommunicatorTest, ARankThatNeverComesEndsTheOthers) {
  for (const bool control : {false, true}) {
    const auto statuses = OnEachRank(3, [&](const Communicator& comm) {
      SP_ASSIGN_OR_RETURN(const HostRank host,
                          OpenHostNccl(comm, kHostNccl, kShort, control));
      if (comm.rank() == 1) return OkStatus();
      ThreeFloats data;
      const Status status = data.AllReduce(host);
      // What is left of it is the reason.
      EXPECT_EQ(host.nccl->health().ToString(), status.ToString());
      EXPECT_EQ(data.AllReduce(host).ToString(), status.ToString());
      return status;
    });
    int timeouts = 0;
    for (const int r : {0, 2}) {
      const bool timed_out = statuses[r].code() == StatusCode::kTimeout;
      timeouts += timed_out ? 1 : 0;
      EXPECT_TRUE(timed_out ||
                  (control && statuses[r].code() == StatusCode::kAborted))
          << statuses[r].ToString();
      EXPECT_THAT(std::string(statuses[r].message()),
                  HasSubstr("on rank " + std::to_string(r) + " of 3"));
    }
    EXPECT_GE(timeouts, 1);
  }
}

TEST(NcclCommunicatorTest, AnOperationThatIsNeverQueuedIsAborted) {
  const PlantedFault fault(kHostNccl, "never_queued ncclAllReduce", 0);
  const auto statuses = OnEachRank(1, [](const Communicator& comm) {
    return OpenAndReduce(comm, kShort, true);
  });
  EXPECT_EQ(statuses[0].code(), StatusCode::kTimeout);
  EXPECT_THAT(std::string(statuses[0].message()),
              HasSubstr("all_reduce by ncclAllReduce of 3 f32 on rank 0 of 1"));
}

TEST(NcclCommunicatorTest, AnErrorOfACallIsTheLibrarysOwn) {
  const PlantedFault fault(kHostNccl, "refuses ncclAllReduce", 1);
  const auto statuses = OnEachRank(2, [](const Communicator& comm) {
    return OpenAndReduce(comm, kLong, true);
  });
  EXPECT_EQ(statuses[1].ToString(),
            "internal error: all_reduce by ncclAllReduce of 3 f32 on rank 1 of "
            "2: invalid usage: ncclAllReduce was told to refuse");
  EXPECT_EQ(statuses[0].code(), StatusCode::kAborted);
  EXPECT_THAT(std::string(statuses[0].message()),
              HasSubstr("ncclAllReduce was told to refuse"));
}

TEST(NcclCommunicatorTest, AnAsynchronousErrorEndsTheWait) {
  const PlantedFault fault(kHostNccl, "async_error ncclAllReduce", 0);
  const auto statuses = OnEachRank(2, [](const Communicator& comm) {
    return OpenAndReduce(comm, kLong, true);
  });
  EXPECT_EQ(statuses[0].code(), StatusCode::kAborted);
  EXPECT_THAT(std::string(statuses[0].message()),
              AllOf(HasSubstr("on rank 0 of 2: remote process exited: a "
                              "planted peer is gone"),
                    HasSubstr("all_reduce by ")));
}

// An error inside a group must not leave the thread in the group: all it queues
// from then on would wait for its end.
TEST(NcclCommunicatorTest, AGroupEndsAfterAnError) {
  const auto statuses = OnEachRank(1, [](const Communicator& comm) {
    SP_ASSIGN_OR_RETURN(const HostRank broken,
                        OpenHostNccl(comm, kHostNccl, kLong, false));
    int32_t in = 7;
    int32_t out = 0;
    const NativeRequest request{.primitive = "send_recv",
                                .send = &in,
                                .recv = &out,
                                .count = 1,
                                .dtype = DType::kI32,
                                .destination = 0,
                                .source = 0};
    {
      const PlantedFault fault(kHostNccl, "refuses ncclRecv", 0);
      EXPECT_THAT(RunNcclNative(*broken.nccl, request, broken.device->stream())
                      .ToString(),
                  HasSubstr("ncclRecv was told to refuse"));
    }
    SP_ASSIGN_OR_RETURN(const HostRank whole,
                        OpenHostNccl(comm, kHostNccl, kLong, false));
    SP_RETURN_IF_ERROR(
        RunNcclNative(*whole.nccl, request, whole.device->stream()));
    EXPECT_EQ(out, 7);
    return OkStatus();
  });
  EXPECT_TRUE(statuses[0].ok()) << statuses[0].ToString();
}

TEST(NcclCommunicatorTest, AWorldThatIsAbortedElsewhereEndsTheWait) {
  std::promise<void> made;
  const auto statuses = OnEachRank(2, [&](const Communicator& comm) {
    SP_ASSIGN_OR_RETURN(const HostRank host,
                        OpenHostNccl(comm, kHostNccl, kLong));
    if (comm.rank() == 1) {
      made.get_future().wait();
      comm.Abort("enough");
      return OkStatus();
    }
    made.set_value();
    ThreeFloats data;
    return data.AllReduce(host);
  });
  EXPECT_EQ(statuses[0].code(), StatusCode::kAborted);
  EXPECT_THAT(std::string(statuses[0].message()),
              AllOf(HasSubstr("all_reduce by "),
                    HasSubstr("ended by another rank"), HasSubstr("enough")));
}

// Queued, but not waited for: the device goes on while the caller does.
TEST(NcclCommunicatorTest, QueuesWithoutWaiting) {
  const auto statuses = OnEachRank(2, [](const Communicator& comm) {
    SP_ASSIGN_OR_RETURN(const HostRank host,
                        OpenHostNccl(comm, kHostNccl, kLong));
    // Rank 0 comes back although rank 1 has not even begun.
    if (comm.rank() == 1) SP_RETURN_IF_ERROR(comm.Barrier());
    ThreeFloats data;
    for (int i = 0; i < 3; ++i) {
      SP_RETURN_IF_ERROR(EnqueueNcclNative(*host.nccl,
                                           {.primitive = "all_reduce",
                                            .send = data.in,
                                            .recv = data.in,
                                            .count = 3,
                                            .dtype = DType::kF32,
                                            .in_place = true},
                                           host.device->stream()));
    }
    if (comm.rank() == 0) SP_RETURN_IF_ERROR(comm.Barrier());
    SP_RETURN_IF_ERROR(host.nccl->Finish(host.device->stream(),
                                         {.function = "three ncclAllReduce"}));
    EXPECT_THAT(data.in, ::testing::ElementsAre(8, 16, 24));
    return OkStatus();
  });
  for (const Status& status : statuses) {
    EXPECT_TRUE(status.ok()) << status.ToString();
  }
}

}  // namespace
}  // namespace shardproof
