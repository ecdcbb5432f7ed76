// The pairing of send_recv: axes, reference, variants, planted bugs.
#include "tools/harness/case.h"

#include <optional>
#include <string>
#include <vector>

#include "collectives/send_recv/send_recv.h"
#include "reference/collectives.h"

namespace shardproof {
namespace {

// A ring shift: every rank sends to the one `distance` further on.
struct P {
  DType dtype = DType::kF32;
  int64_t count = 0;
  int distance = 1;
  bool in_place = false;
  int ranks = 1;
  Memory memory = Memory::kShared;
};

int64_t Bytes(const P& p) { return p.count * SizeOf(p.dtype); }

SendRecvArgs Args(const P& p, const RankContext& context, int distance) {
  const int rank = context.comm().rank(), shift = distance % p.ranks;
  return {.send = context.in("x").data,
          .recv = context.out("y").data,
          .count = p.count,
          .dtype = p.dtype,
          .destination = (rank + shift) % p.ranks,
          .source = (rank + p.ranks - shift) % p.ranks};
}

template <Status (*kRun)(const Communicator&, const SendRecvArgs&)>
StatusOr<Operation> Bind(const P& p, RankContext& context) {
  return Operation(
      [&comm = context.comm(), args = Args(p, context, p.distance)] {
        return kRun(comm, args);
      });
}

StatusOr<Operation> BindAuto(const P& p, RankContext& context) {
  return Operation([&context, args = Args(p, context, p.distance)] {
    return SendRecv(context.comm(), args, context.stream());
  });
}

template <Cost (*kCost)(int, int64_t, DType, int)>
Cost CostOf(const P& p) {
  return kCost(p.ranks, p.count, p.dtype, p.distance);
}

// In place, everything goes through staging memory.
Cost DirectCost(const P& p) {
  return SendRecvDirectCost(p.ranks, p.count, p.dtype, p.distance,
                            p.in_place ? Memory::kOrdinary : p.memory);
}

void Expected(const P& p, const Arithmetic&, const Inputs& in,
              const BlockQuery& query, std::span<Bounded> out) {
  const InputFn input = [&in](int rank, int64_t begin,
                              std::span<double> block) {
    in.Read("x", rank, begin, block);
  };
  SendRecvExpected(p.ranks, p.distance % p.ranks, input, query.rank,
                   query.begin, out);
}

// --- Planted bugs ------------------------------------------------------------

// Sends against the direction of the ring.
StatusOr<Operation> BindBackwards(const P& p, RankContext& context) {
  return Operation([&comm = context.comm(),
                    args = Args(p, context, p.ranks - p.distance % p.ranks)] {
    return SendRecvMessage(comm, args);
  });
}

// Goes one rank too far.
StatusOr<Operation> BindTooFar(const P& p, RankContext& context) {
  return Operation(
      [&comm = context.comm(), args = Args(p, context, p.distance + 1)] {
        return SendRecvMessage(comm, args);
      });
}

std::vector<P> WorkloadOf(const Workload& workload, int ranks) {
  std::vector<P> out;
  for (const Workload::Message& message : workload.messages) {
    if (message.primitive != "send_recv") continue;
    out.push_back(
        {.dtype = message.dtype, .count = message.count, .ranks = ranks});
  }
  return out;
}

const RegisterCase kSendRecv(Case<P>{
    .name = "collectives/send_recv",
    .what =
        "every rank sends one block to a rank and receives one from another",
    .axes = {Axis("dtype", &P::dtype,
                  {DType::kF32, DType::kF16, DType::kI8, DType::kF64})
                 .Bench({DType::kF32}),
             Axis("count", &P::count, {0, 1, 7, 1023, 40003})
                 .Bench({1, 4096, 65536, 1 << 20, 1 << 24})
                 .Smoke({1023}),
             Axis("distance", &P::distance, {1, 2, 3}).Bench({1}).Smoke({1}),
             Axis("in_place", &P::in_place, {false, true}).Bench({false})},
    .tensors = [](const P& p) -> Tensors {
      return {Input("x", p.dtype, {p.count}, PerRank()),
              Output("y", p.dtype, {p.count}, PerRank())
                  .InPlaceOf(p.in_place ? "x" : "")
                  .SampleDimension(0)
                  .SignOfZero()};
    },
    .reference = BlockReference<P>(Expected),
    .variants = {{.name = "auto",
                  .bind = BindAuto,
                  .note = "the fastest of the others here for this size"},
                 {.name = "direct",
                  .bind = Bind<SendRecvDirect>,
                  .needs = kSharedMemory,
                  .cost = DirectCost,
                  .note = "copies between the ranks' own buffers"},
                 {.name = "message",
                  .bind = Bind<SendRecvMessage>,
                  .cost = CostOf<SendRecvMessageCost>,
                  .note = "one message each way"},
                 {.name = "native",
                  .bind = Bind<SendRecvNative>,
                  .native = true,
                  .note = "MPI_Sendrecv"}},
    .mutants = {{.name = "backwards",
                 .bind = BindBackwards,
                 .applies =
                     [](const P& p) {
                       return p.count > 0 && 2 * p.distance % p.ranks != 0;
                     }},
                {.name = "too_far", .bind = BindTooFar}},
    .bytes = Bytes,
    .floor =
        [](const P& p) {
          return Floor{.copy_bytes = 2.0 * static_cast<double>(Bytes(p))};
        },
    .workload = WorkloadOf});

}  // namespace
}  // namespace shardproof
