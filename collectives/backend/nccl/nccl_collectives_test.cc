// Every primitive through the library for tests, against the serial reference:
// on all ranks of a world, in sub-communicators, in and out of place. And that
// results which are wrong by one byte are found.
#include "collectives/backend/nccl/nccl_collectives.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <string_view>
#include <vector>

#include "collectives/backend/nccl/testing/host_device.h"
#include "collectives/backend/thread/thread_world.h"
#include "collectives/testing/check.h"
#include "collectives/testing/native_check.h"

namespace shardproof {
namespace {

using testing::HostRank;

Status RunOn(const HostRank& host, const NativeRequest& request) {
  return RunNcclNative(*host.nccl, request, host.device->stream());
}

// What comes may lie where what goes is still to be read; and types that the
// library is too old for.
bool Refuses(const NcclLibrary& library, const NativeRequest& request) {
  const std::string_view name = request.primitive;
  if (request.in_place && (name == "all_to_all" || name == "send_recv")) {
    return request.count > 0;
  }
  const bool reduces = name == "all_reduce" || name.starts_with("reduce");
  const bool is_fp8 = IsFloat(request.dtype) && SizeOf(request.dtype) == 1;
  return reduces && is_fp8 && !library.Has(NcclFeature::kFp8);
}

Status CheckAll(const Communicator& comm, const HostRank& host) {
  return testing::CheckNative(
      comm, {.run = [&](const NativeRequest& r) { return RunOn(host, r); },
             .refuses =
                 [&](const NativeRequest& r) {
                   return Refuses(host.nccl->library(), r);
                 }});
}

class NcclCollectivesTest : public ::testing::TestWithParam<std::string> {};

TEST_P(NcclCollectivesTest, MatchTheReference) {
  testing::ForEachWorld({1, 2, 3, 4, 5, 8}, [](const Communicator& comm) {
    SP_ASSIGN_OR_RETURN(const HostRank host,
                        testing::OpenHostNccl(comm, GetParam()));
    return CheckAll(comm, host);
  });
}

INSTANTIATE_TEST_SUITE_P(, NcclCollectivesTest,
                         ::testing::Values(testing::kHostNccl,
                                           testing::kHostNccl219),
                         [](const auto& info) {
                           return info.param == testing::kHostNccl
                                      ? "All"
                                      : "WithoutFp8AndAllToAll";
                         });

// A library whose results are wrong on one rank, by one bit or two, is found.
class WrongNcclTest : public ::testing::TestWithParam<std::string> {};

TEST_P(WrongNcclTest, IsFound) {
  const testing::PlantedFault fault(testing::kHostNccl, "wrong " + GetParam(),
                                    2);
  const Status status = RunThreads(3, [](const Communicator& comm) {
    SP_ASSIGN_OR_RETURN(const HostRank host,
                        testing::OpenHostNccl(comm, testing::kHostNccl));
    return CheckAll(comm, host);
  });
  EXPECT_THAT(std::string(status.message()),
              ::testing::HasSubstr("and should be"));
}

INSTANTIATE_TEST_SUITE_P(, WrongNcclTest,
                         ::testing::Values("ncclAllReduce", "ncclReduce",
                                           "ncclReduceScatter", "ncclBroadcast",
                                           "ncclAllGather", "ncclAlltoAll",
                                           "ncclGather", "ncclScatter",
                                           "ncclRecv"),
                         [](const auto& info) { return info.param; });

// What is refused before anything is queued leaves the communicator whole.
TEST(NcclRefusalTest, LeavesTheCommunicatorAlone) {
  testing::ForEachWorld({3}, [](const Communicator& comm) {
    SP_ASSIGN_OR_RETURN(const HostRank host,
                        testing::OpenHostNccl(comm, testing::kHostNccl));
    float data[3] = {};
    const std::vector<int64_t> more(static_cast<size_t>(comm.size()) + 1, 1);
    const NativeRequest refused[] = {
        {.primitive = "all_to_all",
         .send = data,
         .recv = data,
         .count = 1,
         .in_place = true},
        {.primitive = "all_to_all_v",
         .send = data,
         .recv = data,
         .in_place = true},
        {.primitive = "send_recv",
         .send = data,
         .recv = data,
         .count = 1,
         .destination = 0,
         .source = 0,
         .in_place = true},
        {.primitive = "sort"},
    };
    for (const NativeRequest& request : refused) {
      const Status status = RunOn(host, request);
      if (status.code() != StatusCode::kUnsupported) {
        return Internal("{}: {}", request.primitive, status.ToString());
      }
    }
    const NativeRequest wrong[] = {
        {.primitive = "broadcast", .count = -1},
        {.primitive = "broadcast", .root = comm.size()},
        {.primitive = "broadcast", .root = -1},
        {.primitive = "all_gather_v", .recv_counts = more},
        {.primitive = "gather_v", .recv_counts = more},
        {.primitive = "scatter_v", .send_counts = more},
        {.primitive = "reduce_scatter_v", .recv_counts = more},
        {.primitive = "all_to_all_v", .send_counts = more},
        {.primitive = "send_recv", .destination = comm.size()},
    };
    for (const NativeRequest& request : wrong) {
      const Status status = RunOn(host, request);
      if (status.code() != StatusCode::kInvalidArgument) {
        return Internal("{}: {}", request.primitive, status.ToString());
      }
    }
    return RunOn(host, {.primitive = "barrier"});
  });
}

}  // namespace
}  // namespace shardproof
