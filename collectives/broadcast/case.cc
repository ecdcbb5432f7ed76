// The pairing of broadcast: axes, reference, variants, planted bugs.
#include "tools/harness/case.h"

#include <optional>
#include <string>
#include <vector>

#include "collectives/broadcast/broadcast.h"
#include "collectives/kernels/copy.h"
#include "reference/collectives.h"

namespace shardproof {
namespace {

struct P {
  DType dtype = DType::kF32;
  int64_t count = 0;
  int root = 0;
  bool in_place = false;
  int ranks = 1;
  Memory memory = Memory::kShared;
};

int64_t Bytes(const P& p) { return p.count * SizeOf(p.dtype); }

BroadcastArgs Args(const P& p, const RankContext& context) {
  return {.send = context.in("x").data,
          .recv = context.out("y").data,
          .count = p.count,
          .dtype = p.dtype,
          .root = p.root};
}

template <Status (*kRun)(const Communicator&, const BroadcastArgs&)>
StatusOr<Operation> Bind(const P& p, RankContext& context) {
  return Operation([&comm = context.comm(), args = Args(p, context)] {
    return kRun(comm, args);
  });
}

StatusOr<Operation> BindAuto(const P& p, RankContext& context) {
  return Operation([&context, args = Args(p, context)] {
    return Broadcast(context.comm(), args, context.stream());
  });
}

template <Cost (*kCost)(int, int64_t, DType)>
Cost CostOf(const P& p) {
  return kCost(p.ranks, p.count, p.dtype);
}

template <Cost (*kCost)(int, int64_t, DType, Memory)>
Cost DirectCostOf(const P& p) {
  return kCost(p.ranks, p.count, p.dtype, p.memory);
}

void Expected(const P& p, const Arithmetic&, const Inputs& in,
              const BlockQuery& query, std::span<Bounded> out) {
  const InputFn input = [&in](int rank, int64_t begin,
                              std::span<double> block) {
    in.Read("x", rank, begin, block);
  };
  BroadcastExpected(p.root, input, query.rank, query.begin, out);
}

// --- Planted bugs ------------------------------------------------------------

// Rank 0 sends what its input would be; without one, what its output holds.
Status RootIgnored(const Communicator& comm, const BroadcastArgs& args) {
  BroadcastArgs wrong = args;
  wrong.root = 0;
  if (comm.rank() == 0) wrong.send = args.recv;
  return BroadcastBinomial(comm, wrong);
}

// A chain whose loop ends one rank early.
Status ChainWithoutItsEnd(const Communicator& comm, const BroadcastArgs& args) {
  const int p = comm.size(), v = (comm.rank() - args.root + p) % p;
  const auto bytes = static_cast<size_t>(args.count * SizeOf(args.dtype));
  if (v == 0) kernels::Copy(args.recv, args.send, bytes);
  if (v > 0 && v < p - 1) {
    SP_RETURN_IF_ERROR(comm.Recv(args.recv, bytes, (comm.rank() + p - 1) % p));
  }
  if (v >= p - 2) return OkStatus();
  return comm.Send(args.recv, bytes, (comm.rank() + 1) % p);
}

const RegisterCase kBroadcast(Case<P>{
    .name = "collectives/broadcast",
    .what = "every rank gets what the root has",
    .axes = {Axis("dtype", &P::dtype,
                  {DType::kF32, DType::kBF16, DType::kE4M3, DType::kI64})
                 .Bench({DType::kF32}),
             Axis("count", &P::count, {0, 1, 7, 1023, 40003})
                 .Bench({1, 4096, 65536, 1 << 20, 1 << 24})
                 .Smoke({1023}),
             Axis("root", &P::root, {0, 1, 2}).Bench({0}),
             Axis("in_place", &P::in_place, {false, true}).Bench({false})},
    .skip = [](const P& p) -> std::optional<std::string> {
      if (p.root < p.ranks) return std::nullopt;
      return fmt::format("there is no rank {} among {}", p.root, p.ranks);
    },
    .tensors = [](const P& p) -> Tensors {
      return {Input("x", p.dtype, {p.count}, OnRank(p.root)),
              Output("y", p.dtype, {p.count}, Replicated())
                  .InPlaceOf(p.in_place ? "x" : "")
                  .SampleDimension(0)
                  .SignOfZero()};
    },
    .reference = BlockReference<P>(Expected),
    .variants = {{.name = "auto",
                  .bind = BindAuto,
                  .note = "the fastest of the others here for this size"},
                 {.name = "direct",
                  .bind = Bind<BroadcastDirect>,
                  .needs = kSharedMemory,
                  .cost = DirectCostOf<BroadcastDirectCost>,
                  .note = "copies between the ranks' own buffers"},
                 {.name = "binomial",
                  .bind = Bind<BroadcastBinomial>,
                  .cost = CostOf<BroadcastBinomialCost>,
                  .note = "a tree of ceil(lg p) levels"},
                 {.name = "scatter_all_gather",
                  .bind = Bind<BroadcastScatterAllGather>,
                  .cost = CostOf<BroadcastScatterAllGatherCost>,
                  .note = "van de Geijn; Barnett et al., JPDC 22(2), 1994"},
                 {.name = "chain",
                  .bind = Bind<BroadcastChain>,
                  .cost = CostOf<BroadcastChainCost>,
                  .note = "segments flow from rank to rank"},
                 {.name = "native",
                  .bind = Bind<BroadcastNative>,
                  .native = true,
                  .note = "MPI_Bcast"}},
    .mutants = {{.name = "root_ignored",
                 .bind = Bind<RootIgnored>,
                 .applies =
                     [](const P& p) {
                       return p.ranks >= 2 && p.count > 0 && p.root != 0;
                     }},
                {.name = "chain_without_its_end",
                 .bind = Bind<ChainWithoutItsEnd>}},
    .bytes = Bytes,
    .floor =
        [](const P& p) {
          // Every rank stores; somebody loads.
          return Floor{.copy_bytes =
                           static_cast<double>(Bytes(p)) * (1 + 1.0 / p.ranks)};
        }});

}  // namespace
}  // namespace shardproof
