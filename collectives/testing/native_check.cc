#include "collectives/testing/native_check.h"

#include <algorithm>
#include <cstdlib>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "collectives/testing/check.h"
#include "collectives/uneven.h"
#include "reference/collectives.h"

namespace shardproof::testing {
namespace {

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
  const NativeLibrary& library;
  mutable int64_t calls = 0;  // The same number on all ranks.

  int rank() const { return comm.rank(); }
  int size() const { return comm.size(); }
  int root() const { return comm.size() - 1; }
  // Runs `request`, to which the buffers are added.
  Status Check(const Trial& trial, NativeRequest request,
               std::optional<int64_t> in_place_at = std::nullopt) const {
    if (calls++ % library.every != 0) return OkStatus();
    request.in_place = in_place_at.has_value();
    const bool refused = library.refuses != nullptr && library.refuses(request);
    CollectiveCheck check;
    check.name = std::string(request.primitive);
    check.dtype = request.dtype;
    check.send_count = trial.send_count;
    check.recv_count = trial.recv_count;
    check.in_place_at = in_place_at;
    check.input = trial.input;
    // Refused, it leaves everything as it was.
    if (refused) {
      check.expected = [](std::span<Bounded> /*out*/) {};
    } else {
      check.expected = trial.expected;
    }
    check.allocated = library.allocated;
    check.run = [&](const void* send, void* recv) {
      request.send = send;
      request.recv = recv;
      Status status = library.run(request);
      if (!refused) return status;
      return status.code() == StatusCode::kUnsupported
                 ? OkStatus()
                 : Internal("{} of {} is not refused: {}", request.primitive,
                            Name(request.dtype), status.ToString());
    };
    return testing::Check(comm, check);
  }
};

// The three reductions of equal blocks.
Status CheckReductions(const Bench& bench, int64_t count, DType dtype,
                       ReduceOp op) {
  const int p = bench.size();
  const InputFn input = ExactInput(dtype, op, p);
  const Reduction reduction = ExactReduction(dtype, op, p);
  NativeRequest request{.primitive = {},
                        .count = count,
                        .dtype = dtype,
                        .op = op,
                        .root = bench.root(),
                        .scale = ExactScale(bench.rank())};
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
  const InputFn input = SmallIntegers(dtype, bench.size());
  const Reduction reduction =
      ExactReduction(dtype, ReduceOp::kSum, bench.size());
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
  const InputFn input = SmallIntegers(dtype, bench.size());
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
  const InputFn input = SmallIntegers(dtype, bench.size());
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
  const InputFn input = SmallIntegers(dtype, p);
  const AllToAllLayout layout = AllToAllLayout::Even(p, count);
  for (const bool in_place : {false, true}) {
    SP_RETURN_IF_ERROR(bench.Check(
        {.send_count = count * p,
         .recv_count = count * p,
         .input = input,
         .expected =
             [&](std::span<Bounded> out) {
               AllToAllExpected(layout, input, bench.rank(), 0, out);
             }},
        {.primitive = "all_to_all", .count = count, .dtype = dtype},
        in_place ? std::optional<int64_t>(0) : std::nullopt));
  }
  return OkStatus();
}

Status CheckAllToAllV(const Bench& bench, int64_t scale, bool gaps,
                      DType dtype) {
  const int p = bench.size();
  const InputFn input = SmallIntegers(dtype, p);
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

// Around a ring, also in place, and along a line whose ends have nobody on one
// side.
Status CheckSendRecv(const Bench& bench, int64_t count, DType dtype) {
  const int p = bench.size();
  const InputFn input = SmallIntegers(dtype, p);
  const auto check = [&](bool line, std::optional<int64_t> in_place_at) {
    const bool first = line && bench.rank() == 0;
    const bool last = line && bench.rank() == p - 1;
    return bench.Check({.send_count = last ? 0 : count,
                        .recv_count = first ? 0 : count,
                        .input = input,
                        .expected =
                            [&](std::span<Bounded> out) {
                              if (!out.empty()) {
                                SendRecvExpected(p, 1, input, bench.rank(), 0,
                                                 out);
                              }
                            }},
                       {.primitive = "send_recv",
                        .count = count,
                        .dtype = dtype,
                        .destination = last ? -1 : (bench.rank() + 1) % p,
                        .source = first ? -1 : (bench.rank() + p - 1) % p},
                       in_place_at);
  };
  SP_RETURN_IF_ERROR(check(false, std::nullopt));
  SP_RETURN_IF_ERROR(check(false, 0));
  return check(true, std::nullopt);
}

}  // namespace

int64_t EveryOfEnvironment() {
  const char* every = std::getenv("SHARDPROOF_TEST_EVERY");
  return every == nullptr
             ? 1
             : std::max<int64_t>(1, std::strtoll(every, nullptr, 10));
}

Status CheckNative(const Communicator& comm, const NativeLibrary& library) {
  const Bench bench{comm, library};
  SP_RETURN_IF_ERROR(
      ForEachReduction([&](int64_t count, DType dtype, ReduceOp op) {
        return CheckReductions(bench, count, dtype, op);
      }));
  SP_RETURN_IF_ERROR(ForEachCount([&](int64_t count, DType dtype) {
    SP_RETURN_IF_ERROR(CheckReduceScatterV(bench, count, dtype));
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
  return library.run({.primitive = "barrier"});
}

}  // namespace shardproof::testing
