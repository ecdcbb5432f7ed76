// Every primitive through the library for tests, against the serial reference:
// on all ranks of a world, in sub-communicators, in and out of place. And that
// results which are wrong by one byte are found.
#include "collectives/backend/nccl/nccl_collectives.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <functional>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "collectives/backend/nccl/testing/host_device.h"
#include "collectives/backend/thread/thread_world.h"
#include "collectives/testing/check.h"
#include "collectives/uneven.h"
#include "reference/collectives.h"

namespace shardproof {
namespace {

using testing::HostRank;

// What a primitive is tried with, and what must come of it.
struct Trial {
  int64_t send_count = 0;
  int64_t recv_count = 0;
  InputFn input;
  std::function<void(std::span<Bounded> out)> expected;
};

// One rank and what its calls have in common.
struct Bench {
  const Communicator& comm;
  const HostRank& host;

  int rank() const { return comm.rank(); }
  int size() const { return comm.size(); }
  int root() const { return comm.size() - 1; }
  Status Run(const NativeRequest& request) const {
    return RunNcclNative(*host.nccl, request, host.device->stream());
  }
  // Runs `request`, to which the buffers are added.
  Status Check(const Trial& trial, NativeRequest request,
               std::optional<int64_t> in_place_at = std::nullopt) const {
    testing::CollectiveCheck check;
    check.name = std::string(request.primitive);
    check.dtype = request.dtype;
    check.send_count = trial.send_count;
    check.recv_count = trial.recv_count;
    check.in_place_at = in_place_at;
    check.input = trial.input;
    check.expected = trial.expected;
    request.in_place = in_place_at.has_value();
    check.run = [&](const void* send, void* recv) {
      request.send = send;
      request.recv = recv;
      return Run(request);
    };
    return testing::Check(comm, check);
  }
};

bool IsFp8(DType dtype) { return IsFloat(dtype) && SizeOf(dtype) == 1; }

// The three reductions of equal blocks.
Status CheckReductions(const Bench& bench, int64_t count, DType dtype,
                       ReduceOp op) {
  const int p = bench.size();
  const InputFn input = testing::ExactInput(dtype, op, p);
  const Reduction reduction = testing::ExactReduction(dtype, op, p);
  NativeRequest request{.primitive = {},
                        .count = count,
                        .dtype = dtype,
                        .op = op,
                        .root = bench.root(),
                        .scale = testing::ExactScale(bench.rank())};
  if (IsFp8(dtype) && !bench.host.nccl->library().Has(NcclFeature::kFp8)) {
    request.primitive = "all_reduce";
    const Status refused = bench.Run(request);
    return refused.code() == StatusCode::kUnsupported
               ? OkStatus()
               : Internal("{} of {}: {}", Name(op), Name(dtype),
                          refused.ToString());
  }
  for (const bool in_place : {false, true}) {
    const auto at = [&](int64_t element) {
      return in_place ? std::optional(element) : std::nullopt;
    };
    request.primitive = "all_reduce";
    SP_RETURN_IF_ERROR(bench.Check(
        {.send_count = count,
         .recv_count = count,
         .input = input,
         .expected =
             [&](std::span<Bounded> out) {
               AllReduceExpected(reduction, input, bench.rank(), 0, out);
             }},
        request, at(0)));
    const bool at_root = bench.rank() == bench.root();
    request.primitive = "reduce";
    SP_RETURN_IF_ERROR(bench.Check({.send_count = count,
                                    .recv_count = at_root ? count : 0,
                                    .input = input,
                                    .expected =
                                        [&](std::span<Bounded> out) {
                                          ReduceExpected(reduction,
                                                         bench.root(), input,
                                                         bench.rank(), 0, out);
                                        }},
                                   request, at_root ? at(0) : std::nullopt));
    const Layout layout = Layout::Even(p, count);
    request.primitive = "reduce_scatter";
    SP_RETURN_IF_ERROR(bench.Check({.send_count = count * p,
                                    .recv_count = count,
                                    .input = input,
                                    .expected =
                                        [&](std::span<Bounded> out) {
                                          ReduceScatterExpected(
                                              reduction, layout, input,
                                              bench.rank(), 0, out);
                                        }},
                                   request, at(count * bench.rank())));
  }
  return OkStatus();
}

Status CheckReduceScatterV(const Bench& bench, int64_t scale, DType dtype) {
  const InputFn input = testing::SmallIntegers(dtype, bench.size());
  const Reduction reduction =
      testing::ExactReduction(dtype, ReduceOp::kSum, bench.size());
  const Layout layout = Layout::Packed(UnevenCounts(bench.size(), scale));
  const auto r = static_cast<size_t>(bench.rank());
  for (const bool in_place : {false, true}) {
    SP_RETURN_IF_ERROR(bench.Check(
        {.send_count = layout.extent(),
         .recv_count = layout.counts[r],
         .input = input,
         .expected =
             [&](std::span<Bounded> out) {
               ReduceScatterExpected(reduction, layout, input, bench.rank(), 0,
                                     out);
             }},
        {.primitive = "reduce_scatter_v",
         .count = layout.counts[r],
         .dtype = dtype,
         .recv_counts = layout.counts},
        in_place ? std::optional(layout.displacements[r]) : std::nullopt));
  }
  return OkStatus();
}

Status CheckBroadcast(const Bench& bench, int64_t count, DType dtype) {
  const InputFn input = testing::SmallIntegers(dtype, bench.size());
  for (const bool in_place : {false, true}) {
    SP_RETURN_IF_ERROR(bench.Check(
        {.send_count = count,
         .recv_count = count,
         .input = input,
         .expected =
             [&](std::span<Bounded> out) {
               BroadcastExpected(bench.root(), input, bench.rank(), 0, out);
             }},
        {.primitive = "broadcast",
         .count = count,
         .dtype = dtype,
         .root = bench.root()},
        in_place ? std::optional<int64_t>(0) : std::nullopt));
  }
  return OkStatus();
}

// Equal blocks (no counts), or the v forms.
struct Blocks {
  Layout layout;
  std::vector<int64_t> counts, offsets;

  static Blocks Even(int ranks, int64_t count) {
    return {Layout::Even(ranks, count), {}, {}};
  }
  static Blocks Uneven(int ranks, int64_t scale, bool gaps) {
    Blocks blocks{Layout::Packed(UnevenCounts(ranks, scale)), {}, {}};
    blocks.counts = blocks.layout.counts;
    if (gaps) {
      blocks.offsets = GappedOffsets(blocks.counts);
      blocks.layout.displacements = blocks.offsets;
    }
    return blocks;
  }
  std::string Name(const std::string& primitive) const {
    return counts.empty() ? primitive : primitive + "_v";
  }
};

Status CheckGathersAndScatter(const Bench& bench, const Blocks& blocks,
                              DType dtype) {
  const InputFn input = testing::SmallIntegers(dtype, bench.size());
  const Layout& layout = blocks.layout;
  const auto r = static_cast<size_t>(bench.rank());
  const bool at_root = bench.rank() == bench.root();
  const std::string all_gather = blocks.Name("all_gather");
  const std::string gather = blocks.Name("gather");
  const std::string scatter = blocks.Name("scatter");
  NativeRequest request{.primitive = {},
                        .count = layout.counts[r],
                        .dtype = dtype,
                        .root = bench.root(),
                        .recv_counts = blocks.counts,
                        .recv_offsets = blocks.offsets};
  for (const bool in_place : {false, true}) {
    const auto at =
        in_place ? std::optional(layout.displacements[r]) : std::nullopt;
    request.primitive = all_gather;
    SP_RETURN_IF_ERROR(bench.Check(
        {.send_count = layout.counts[r],
         .recv_count = layout.extent(),
         .input = input,
         .expected =
             [&](std::span<Bounded> out) {
               AllGatherExpected(layout, input, bench.rank(), 0, out);
             }},
        request, at));
    request.primitive = gather;
    SP_RETURN_IF_ERROR(bench.Check({.send_count = layout.counts[r],
                                    .recv_count = at_root ? layout.extent() : 0,
                                    .input = input,
                                    .expected =
                                        [&](std::span<Bounded> out) {
                                          GatherExpected(layout, bench.root(),
                                                         input, bench.rank(), 0,
                                                         out);
                                        }},
                                   request, at_root ? at : std::nullopt));
    request.primitive = scatter;
    request.send_counts = blocks.counts;
    request.send_offsets = blocks.offsets;
    // Of the other ranks the reference reads nothing.
    const bool reads = at_root;
    SP_RETURN_IF_ERROR(bench.Check({.send_count = reads ? layout.extent() : 0,
                                    .recv_count = layout.counts[r],
                                    .input = input,
                                    .expected =
                                        [&](std::span<Bounded> out) {
                                          ScatterExpected(layout, bench.root(),
                                                          input, bench.rank(),
                                                          0, out);
                                        }},
                                   request, at_root ? at : std::nullopt));
  }
  return OkStatus();
}

Status CheckAllToAll(const Bench& bench, int64_t count, DType dtype) {
  const int p = bench.size();
  const InputFn input = testing::SmallIntegers(dtype, p);
  const AllToAllLayout layout = AllToAllLayout::Even(p, count);
  return bench.Check(
      {.send_count = count * p,
       .recv_count = count * p,
       .input = input,
       .expected =
           [&](std::span<Bounded> out) {
             AllToAllExpected(layout, input, bench.rank(), 0, out);
           }},
      {.primitive = "all_to_all", .count = count, .dtype = dtype});
}

Status CheckAllToAllV(const Bench& bench, int64_t scale, bool gaps,
                      DType dtype) {
  const int p = bench.size();
  const InputFn input = testing::SmallIntegers(dtype, p);
  std::vector<std::vector<int64_t>> counts;
  for (int s = 0; s < p; ++s) counts.push_back(UnevenCounts(p, scale, s));
  AllToAllLayout layout = AllToAllLayout::FromCounts(counts);
  for (auto* side : {&layout.send, &layout.recv}) {
    for (Layout& one : *side) {
      if (gaps) one.displacements = GappedOffsets(one.counts);
    }
  }
  const auto r = static_cast<size_t>(bench.rank());
  const Layout& send = layout.send[r];
  const Layout& recv = layout.recv[r];
  NativeRequest request{.primitive = "all_to_all_v",
                        .dtype = dtype,
                        .send_counts = send.counts,
                        .recv_counts = recv.counts};
  if (gaps) {
    request.send_offsets = send.displacements;
    request.recv_offsets = recv.displacements;
  }
  return bench.Check({.send_count = send.extent(),
                      .recv_count = recv.extent(),
                      .input = input,
                      .expected =
                          [&](std::span<Bounded> out) {
                            AllToAllExpected(layout, input, bench.rank(), 0,
                                             out);
                          }},
                     request);
}

// Around a ring, and along a line whose ends have nobody on one side.
Status CheckSendRecv(const Bench& bench, int64_t count, DType dtype) {
  const int p = bench.size();
  const InputFn input = testing::SmallIntegers(dtype, p);
  for (const bool line : {false, true}) {
    const bool first = line && bench.rank() == 0;
    const bool last = line && bench.rank() == p - 1;
    SP_RETURN_IF_ERROR(bench.Check(
        {.send_count = last ? 0 : count,
         .recv_count = first ? 0 : count,
         .input = input,
         .expected =
             [&](std::span<Bounded> out) {
               if (!out.empty()) {
                 SendRecvExpected(p, 1, input, bench.rank(), 0, out);
               }
             }},
        {.primitive = "send_recv",
         .count = count,
         .dtype = dtype,
         .destination = last ? -1 : (bench.rank() + 1) % p,
         .source = first ? -1 : (bench.rank() + p - 1) % p}));
  }
  return OkStatus();
}

Status CheckAll(const Bench& bench) {
  SP_RETURN_IF_ERROR(
      testing::ForEachReduction([&](int64_t count, DType dtype, ReduceOp op) {
        return CheckReductions(bench, count, dtype, op);
      }));
  SP_RETURN_IF_ERROR(testing::ForEachCount([&](int64_t count, DType dtype) {
    if (!IsFp8(dtype)) {
      SP_RETURN_IF_ERROR(CheckReduceScatterV(bench, count, dtype));
    }
    SP_RETURN_IF_ERROR(CheckBroadcast(bench, count, dtype));
    SP_RETURN_IF_ERROR(CheckGathersAndScatter(
        bench, Blocks::Even(bench.size(), count), dtype));
    SP_RETURN_IF_ERROR(CheckAllToAll(bench, count, dtype));
    for (const bool gaps : {false, true}) {
      SP_RETURN_IF_ERROR(CheckGathersAndScatter(
          bench, Blocks::Uneven(bench.size(), count, gaps), dtype));
      SP_RETURN_IF_ERROR(CheckAllToAllV(bench, count, gaps, dtype));
    }
    return CheckSendRecv(bench, count, dtype);
  }));
  return bench.Run({.primitive = "barrier"});
}

class NcclCollectivesTest : public ::testing::TestWithParam<std::string> {};

TEST_P(NcclCollectivesTest, MatchTheReference) {
  testing::ForEachWorld({1, 2, 3, 4, 5, 8}, [](const Communicator& comm) {
    SP_ASSIGN_OR_RETURN(const HostRank host,
                        testing::OpenHostNccl(comm, GetParam()));
    return CheckAll({comm, host});
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
    return CheckAll({comm, host});
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
    const Bench bench{comm, host};
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
      const Status status = bench.Run(request);
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
      const Status status = bench.Run(request);
      if (status.code() != StatusCode::kInvalidArgument) {
        return Internal("{}: {}", request.primitive, status.ToString());
      }
    }
    return bench.Run({.primitive = "barrier"});
  });
}

}  // namespace
}  // namespace shardproof
