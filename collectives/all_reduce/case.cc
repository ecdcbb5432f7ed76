// The pairing of all_reduce: axes, reference, variants, planted bugs.
#include "tools/harness/case.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "collectives/all_reduce/all_reduce.h"
#include "collectives/chunks.h"
#include "collectives/kernels/reduce.h"
#include "collectives/patterns/ring.h"
#include "collectives/tuning.h"
#include "reference/collectives.h"

namespace shardproof {
namespace {

struct P {
  DType dtype = DType::kF32;
  int64_t count = 0;
  ReduceOp op = ReduceOp::kSum;
  bool in_place = false;
  int ranks = 1;
  Memory memory = Memory::kShared;
  std::vector<int> node_of = {};
};

int64_t Bytes(const P& p) { return p.count * SizeOf(p.dtype); }

// The factor of each rank for kPremulSum.
double Scale(int rank) { return rank % 2 == 0 ? 1 + rank % 3 : -2; }

AllReduceArgs Args(const P& p, const RankContext& context) {
  return {.send = context.in("x").data,
          .recv = context.out("y").data,
          .count = p.count,
          .dtype = p.dtype,
          .op = p.op,
          .scale = Scale(context.comm().rank())};
}

template <Status (*kRun)(const Communicator&, const AllReduceArgs&)>
StatusOr<Operation> Bind(const P& p, RankContext& context) {
  return Operation([&comm = context.comm(), args = Args(p, context)] {
    return kRun(comm, args);
  });
}

StatusOr<Operation> BindAuto(const P& p, RankContext& context) {
  return Operation([&context, args = Args(p, context)] {
    return AllReduce(context.comm(), args, context.stream());
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
           return row.primitive == "all_reduce";
         });
}

Topology TopologyOf(const P& p) {
  if (p.node_of.empty()) {
    return {.node_of = std::vector<int>(static_cast<size_t>(p.ranks), 0)};
  }
  return {.node_of = p.node_of,
          .nodes = 1 + *std::max_element(p.node_of.begin(), p.node_of.end())};
}

// The most of what any variant does: the ring's additions, and the division that
// the hierarchical one rounds by itself.
Arithmetic AutoArithmetic(const P& p) {
  if (!SendsPartials(p.node_of)) return Arithmetic::For(p.dtype, p.ranks);
  Arithmetic most = AllReduceRingArithmetic(p.ranks, p.dtype, p.op);
  if (p.op == ReduceOp::kAvg) ++most.wire_roundings;
  return most;
}

Reduction ReductionOf(const P& p, const Arithmetic& arithmetic) {
  Reduction reduction{.op = p.op,
                      .dtype = p.dtype,
                      .ranks = p.ranks,
                      .arithmetic = arithmetic,
                      .factors = {}};
  for (int r = 0; r < p.ranks; ++r) reduction.factors.push_back(Scale(r));
  return reduction;
}

int64_t Terms(const P& p) {
  if (p.op != ReduceOp::kPremulSum) return p.ranks;
  double sum = 0;
  for (int r = 0; r < p.ranks; ++r) sum += std::abs(Scale(r));
  return static_cast<int64_t>(sum);
}

// With factors, what stays exact needs the sum of their magnitudes to fit.
std::optional<std::string> SumsTooLarge(const P& p) {
  if (p.op != ReduceOp::kPremulSum || !IsFloat(p.dtype) ||
      Terms(p) < int64_t{1} << SignificandBits(p.dtype)) {
    return std::nullopt;
  }
  return "the factors add up to more than the type holds exactly";
}

void Expected(const P& p, const Arithmetic& arithmetic, const Inputs& in,
              const BlockQuery& query, std::span<Bounded> out) {
  const InputFn input = [&in](int rank, int64_t begin,
                              std::span<double> block) {
    in.Read("x", rank, begin, block);
  };
  AllReduceExpected(ReductionOf(p, arithmetic), input, query.rank, query.begin,
                    out);
}

// --- Planted bugs ------------------------------------------------------------

Status RingWithoutLastStep(const Communicator& comm,
                           const AllReduceArgs& args) {
  const int p = comm.size(), r = comm.rank();
  const Blocks chunks = Blocks::Balanced(args.count, p);
  SP_RETURN_IF_ERROR(RingReduceScatter(comm,
                                       Combine::For(args.dtype, args.op, p),
                                       chunks, args.send, args.recv, nullptr));
  for (int t = 0; t < p - 2; ++t) {
    const int out = (r + p - t) % p, in = (r + 2 * p - 1 - t) % p;
    SP_RETURN_IF_ERROR(
        comm.SendRecv(At(args.recv, args.dtype, chunks.Begin(out)),
                      chunks.Count(out) * SizeOf(args.dtype), (r + 1) % p,
                      At(args.recv, args.dtype, chunks.Begin(in)),
                      chunks.Count(in) * SizeOf(args.dtype), (r + p - 1) % p));
  }
  return OkStatus();
}

// Two-shot whose ranks leave when they have stored their own slice.
Status TwoShotWithoutDepart(const Communicator& comm,
                            const AllReduceArgs& args) {
  const auto bytes = static_cast<size_t>(args.count * SizeOf(args.dtype));
  SP_ASSIGN_OR_RETURN(const Peers peers,
                      comm.Meet({args.send, bytes, args.recv, bytes}));
  const Chunk slice = BalancedChunk(args.count, comm.size(), comm.rank());
  const auto begin = static_cast<size_t>(slice.begin * SizeOf(args.dtype));
  const auto size = static_cast<size_t>(slice.count * SizeOf(args.dtype));
  std::vector<const void*> sources;
  std::vector<void*> destinations;
  for (int r = 0; r < comm.size(); ++r) {
    sources.push_back(peers.Read(r, begin, size));
    destinations.push_back(peers.Write(r, begin, size));
  }
  // The last rank is slow, as any may be.
  if (comm.rank() == comm.size() - 1) {
    std::this_thread::sleep_for(std::chrono::milliseconds(2));
  }
  kernels::Reduce(args.dtype, args.op, sources, slice.count, destinations);
  return OkStatus();
}

Status SumForAverage(const Communicator& comm, const AllReduceArgs& args) {
  AllReduceArgs sum = args;
  sum.op = ReduceOp::kSum;
  return AllReduceRing(comm, sum);
}

Status WithoutScale(const Communicator& comm, const AllReduceArgs& args) {
  AllReduceArgs sum = args;
  sum.scale = 1;
  return AllReduceRabenseifner(comm, sum);
}

bool Plain(const P& p) {
  return p.ranks >= 2 && p.count > 0 && p.op == ReduceOp::kSum;
}

const RegisterCase kAllReduce(Case<P>{
    .name = "collectives/all_reduce",
    .what = "every rank gets the reduction over all ranks",
    .axes = {Axis("dtype", &P::dtype,
                  {DType::kF32, DType::kBF16, DType::kF64, DType::kF16,
                   DType::kE4M3, DType::kE5M2, DType::kI8, DType::kU8,
                   DType::kI32, DType::kI64})
                 .Bench({DType::kF32, DType::kBF16})
                 .Smoke({DType::kF32}),
             Axis("count", &P::count, {0, 1, 7, 1023, 40003})
                 .Bench({1, 4096, 65536, 1 << 20, 1 << 24})
                 .Smoke({1023}),
             Axis("op", &P::op,
                  {ReduceOp::kSum, ReduceOp::kProd, ReduceOp::kMin,
                   ReduceOp::kMax, ReduceOp::kAvg, ReduceOp::kPremulSum})
                 .Bench({ReduceOp::kSum})
                 .Smoke({ReduceOp::kSum}),
             Axis("in_place", &P::in_place, {false, true}).Bench({false})},
    .skip = SumsTooLarge,
    .tensors = [](const P& p) -> Tensors {
      return {Input("x", p.dtype, {p.count}, PerRank()).Terms(p.op, Terms(p)),
              Output("y", p.dtype, {p.count}, Replicated())
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
          .bind = Bind<AllReduceDirect>,
          .needs = kSharedMemory,
          .cost = DirectCostOf<AllReduceDirectCost>,
          .note = "one_shot or two_shot, by size"},
         {.name = "one_shot",
          .bind = Bind<AllReduceOneShot>,
          .needs = kSharedMemory,
          .cost = DirectCostOf<AllReduceOneShotCost>,
          .note = "every rank folds all inputs, in rank order"},
         {.name = "two_shot",
          .bind = Bind<AllReduceTwoShot>,
          .needs = kSharedMemory,
          .cost = DirectCostOf<AllReduceTwoShotCost>,
          .note = "every rank folds its slice and stores it to all outputs"},
         {.name = "ring",
          .bind = Bind<AllReduceRing>,
          .cost = CostOf<AllReduceRingCost>,
          .arithmetic = ArithmeticOf<AllReduceRingArithmetic>,
          .note = "Patarasuk and Yuan, JPDC 69(2), 2009"},
         {.name = "recursive_doubling",
          .bind = Bind<AllReduceRecursiveDoubling>,
          .cost = CostOf<AllReduceRecursiveDoublingCost>,
          .arithmetic = ArithmeticOf<AllReduceRecursiveDoublingArithmetic>,
          .note = "Thakur, Rabenseifner and Gropp, IJHPCA 19(1), 2005"},
         {.name = "rabenseifner",
          .bind = Bind<AllReduceRabenseifner>,
          .cost = CostOf<AllReduceRabenseifnerCost>,
          .arithmetic = ArithmeticOf<AllReduceRabenseifnerArithmetic>,
          .note = "recursive halving, then doubling; ICCS 2004"},
         {.name = "hierarchical",
          .bind = Bind<AllReduceHierarchical>,
          .cost =
              [](const P& p) {
                return AllReduceHierarchicalCost(TopologyOf(p), p.count,
                                                 p.dtype);
              },
          .arithmetic =
              [](const P& p) {
                return AllReduceHierarchicalArithmetic(TopologyOf(p), p.dtype,
                                                       p.op);
              },
          .note = "reduce_scatter inside groups, all_reduce across, "
                  "all_gather inside"},
         {.name = "native",
          .bind = Bind<AllReduceNative>,
          .native = true,
          .note = "MPI_Allreduce"}},
    .mutants = {{.name = "ring_without_last_step",
                 .bind = Bind<RingWithoutLastStep>,
                 .applies = Plain},
                {.name = "two_shot_without_depart",
                 .bind = Bind<TwoShotWithoutDepart>,
                 // The slow rank's slice must have something in it.
                 .applies =
                     [](const P& p) { return Plain(p) && p.count >= p.ranks; },
                 .needs = kSharedMemory},
                {.name = "sum_for_average",
                 .bind = Bind<SumForAverage>,
                 .applies =
                     [](const P& p) {
                       return p.ranks >= 2 && p.count > 0 &&
                              p.op == ReduceOp::kAvg;
                     }},
                {.name = "without_scale",
                 .bind = Bind<WithoutScale>,
                 .applies =
                     [](const P& p) {
                       return p.ranks >= 2 && p.count > 0 &&
                              p.op == ReduceOp::kPremulSum;
                     }}},
    .bytes = Bytes,
    .busbw_factor = [](const P& p) { return 2.0 * (p.ranks - 1) / p.ranks; },
    .floor =
        [](const P& p) {
          return Floor{.copy_bytes = 2.0 * static_cast<double>(Bytes(p))};
        },
    .workload =
        [](const Workload& workload, int ranks) {
          std::vector<P> out;
          for (const Workload::Message& message : workload.messages) {
            if (message.primitive != "all_reduce") continue;
            out.push_back({.dtype = message.dtype,
                           .count = message.count,
                           .ranks = ranks});
          }
          return out;
        }});

}  // namespace
}  // namespace shardproof
