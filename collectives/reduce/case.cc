// The pairing of reduce: axes, reference, variants, planted bugs.
#include "tools/harness/case.h"

#include <algorithm>
#include <cmath>
#include <optional>
#include <string>
#include <vector>

#include "collectives/kernels/copy.h"
#include "collectives/kernels/reduce.h"
#include "collectives/reduce/reduce.h"
#include "collectives/tuning.h"
#include "reference/collectives.h"

namespace shardproof {
namespace {

struct P {
  DType dtype = DType::kF32;
  int64_t count = 0;
  ReduceOp op = ReduceOp::kSum;
  int root = 0;
  bool in_place = false;
  int ranks = 1;
  Memory memory = Memory::kShared;
  std::vector<int> node_of = {};
};

int64_t Bytes(const P& p) { return p.count * SizeOf(p.dtype); }

// The factor of each rank for kPremulSum.
double Scale(int rank) { return rank % 2 == 0 ? 1 + rank % 3 : -2; }

ReduceArgs Args(const P& p, const RankContext& context) {
  return {.send = context.in("x").data,
          .recv = context.out("y").data,
          .count = p.count,
          .dtype = p.dtype,
          .op = p.op,
          .scale = Scale(context.comm().rank()),
          .root = p.root};
}

template <Status (*kRun)(const Communicator&, const ReduceArgs&)>
StatusOr<Operation> Bind(const P& p, RankContext& context) {
  return Operation([&comm = context.comm(), args = Args(p, context)] {
    return kRun(comm, args);
  });
}

StatusOr<Operation> BindAuto(const P& p, RankContext& context) {
  return Operation([&context, args = Args(p, context)] {
    return Reduce(context.comm(), args, context.stream());
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

template <Arithmetic (*kArithmetic)(int, DType, ReduceOp)>
Arithmetic ArithmeticOf(const P& p) {
  return kArithmetic(p.ranks, p.dtype, p.op);
}

// Whether `auto` may send partial sums in dtype: between nodes, or where a table
// says so. In shared memory it folds at once, as `direct` does.
bool SendsPartials(const std::vector<int>& node_of) {
  return std::ranges::any_of(node_of, [](int node) { return node != 0; }) ||
         std::ranges::any_of(ActiveTuningOrNone().rows(), [](const auto& row) {
           return row.primitive == "reduce";
         });
}

// scatter_gather adds at least as often as the tree does.
Arithmetic AutoArithmetic(const P& p) {
  return SendsPartials(p.node_of)
             ? ReduceScatterGatherArithmetic(p.ranks, p.dtype, p.op)
             : Arithmetic::For(p.dtype, p.ranks);
}

int64_t Terms(const P& p) {
  if (p.op != ReduceOp::kPremulSum) return p.ranks;
  double sum = 0;
  for (int r = 0; r < p.ranks; ++r) sum += std::abs(Scale(r));
  return static_cast<int64_t>(sum);
}

void Expected(const P& p, const Arithmetic& arithmetic, const Inputs& in,
              const BlockQuery& query, std::span<Bounded> out) {
  Reduction reduction{.op = p.op,
                      .dtype = p.dtype,
                      .ranks = p.ranks,
                      .arithmetic = arithmetic,
                      .factors = {}};
  for (int r = 0; r < p.ranks; ++r) reduction.factors.push_back(Scale(r));
  const InputFn input = [&in](int rank, int64_t begin,
                              std::span<double> block) {
    in.Read("x", rank, begin, block);
  };
  ReduceExpected(reduction, p.root, input, query.rank, query.begin, out);
}

// --- Planted bugs ------------------------------------------------------------

// Rank 0 gets the result, in the root's stead.
Status RootIgnored(const Communicator& comm, const ReduceArgs& args) {
  std::vector<std::byte> result(
      static_cast<size_t>(args.count * SizeOf(args.dtype)));
  ReduceArgs wrong = args;
  wrong.root = 0;
  wrong.recv = result.data();
  return ReduceBinomial(comm, wrong);
}

// A linear reduction whose loop ends one rank early.
Status WithoutTheLastRank(const Communicator& comm, const ReduceArgs& args) {
  const int p = comm.size(), v = (comm.rank() - args.root + p) % p;
  const auto bytes = static_cast<size_t>(args.count * SizeOf(args.dtype));
  if (v == p - 1 && p > 1) return OkStatus();
  if (v > 0) return comm.Send(args.send, bytes, args.root);
  std::vector<std::byte> arrived(bytes);
  kernels::Copy(args.recv, args.send, bytes);
  for (int k = 1; k < p - 1; ++k) {
    SP_RETURN_IF_ERROR(comm.Recv(arrived.data(), bytes, (args.root + k) % p));
    kernels::ReduceInto(args.dtype, args.op, args.recv, arrived.data(),
                        args.count);
  }
  return OkStatus();
}

const RegisterCase kReduce(Case<P>{
    .name = "collectives/reduce",
    .what = "the root gets the reduction over all ranks",
    .axes = {Axis("dtype", &P::dtype,
                  {DType::kF32, DType::kF16, DType::kE4M3, DType::kU8})
                 .Bench({DType::kF32}),
             Axis("count", &P::count, {0, 1, 7, 1023, 40003})
                 .Bench({1, 4096, 65536, 1 << 20, 1 << 24})
                 .Smoke({1023}),
             Axis("op", &P::op,
                  {ReduceOp::kSum, ReduceOp::kMax, ReduceOp::kAvg,
                   ReduceOp::kPremulSum})
                 .Bench({ReduceOp::kSum}),
             Axis("root", &P::root, {0, 1, 2}).Bench({0}),
             Axis("in_place", &P::in_place, {false, true}).Bench({false})},
    .skip = [](const P& p) -> std::optional<std::string> {
      if (p.root < p.ranks) return std::nullopt;
      return fmt::format("there is no rank {} among {}", p.root, p.ranks);
    },
    .tensors = [](const P& p) -> Tensors {
      return {Input("x", p.dtype, {p.count}, PerRank()).Terms(p.op, Terms(p)),
              Output("y", p.dtype, {p.count}, OnRank(p.root))
                  .InPlaceOf(p.in_place ? "x" : "")
                  .SampleDimension(0)};
    },
    .reference = BlockReference<P>(Expected),
    .variants =
        {{.name = "auto",
          .bind = BindAuto,
          .arithmetic = AutoArithmetic,
          .note = "the fastest of the others here for this size"},
         {.name = "direct",
          .bind = Bind<ReduceDirect>,
          .needs = kSharedMemory,
          .cost = DirectCostOf<ReduceDirectCost>,
          .note = "every rank folds its slice and stores it at the root"},
         {.name = "binomial",
          .bind = Bind<ReduceBinomial>,
          .cost = CostOf<ReduceBinomialCost>,
          .arithmetic = ArithmeticOf<ReduceBinomialArithmetic>,
          .note = "a tree of ceil(lg p) levels"},
         {.name = "scatter_gather",
          .bind = Bind<ReduceScatterGather>,
          .cost = CostOf<ReduceScatterGatherCost>,
          .arithmetic = ArithmeticOf<ReduceScatterGatherArithmetic>,
          .note = "recursive halving, then gather; Rabenseifner, ICCS 2004"},
         {.name = "native",
          .bind = Bind<ReduceNative>,
          .native = true,
          .note = "MPI_Reduce"}},
    .mutants = {{.name = "root_ignored",
                 .bind = Bind<RootIgnored>,
                 .applies =
                     [](const P& p) {
                       return p.ranks >= 2 && p.count > 0 && p.root != 0 &&
                              p.op == ReduceOp::kSum;
                     }},
                {.name = "without_the_last_rank",
                 .bind = Bind<WithoutTheLastRank>,
                 .applies =
                     [](const P& p) {
                       return p.ranks >= 2 && p.count > 0 &&
                              p.op == ReduceOp::kSum;
                     }}},
    .bytes = Bytes,
    .floor =
        [](const P& p) {
          // All inputs are loaded, one result is stored, by somebody.
          return Floor{.copy_bytes =
                           static_cast<double>(Bytes(p)) * (1 + 1.0 / p.ranks)};
        }});

}  // namespace
}  // namespace shardproof
