// The pairings of reduce_scatter and reduce_scatter_v: axes, reference,
// variants, planted bugs.
#include "tools/harness/case.h"

#include <algorithm>
#include <cmath>
#include <optional>
#include <string>
#include <vector>

#include "collectives/chunks.h"
#include "collectives/kernels/copy.h"
#include "collectives/patterns/reducing_exchange.h"
#include "collectives/reduce_scatter/reduce_scatter.h"
#include "collectives/tuning.h"
#include "collectives/uneven.h"
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

struct PV {
  DType dtype = DType::kF32;
  int64_t count = 0;  // Of the largest block, about.
  ReduceOp op = ReduceOp::kSum;
  bool in_place = false;
  int ranks = 1;
  Memory memory = Memory::kShared;
  std::vector<int> node_of = {};
};

Layout LayoutOf(const P& p) { return Layout::Even(p.ranks, p.count); }
Layout LayoutOf(const PV& p) {
  return Layout::Packed(UnevenCounts(p.ranks, p.count));
}

// The factor of each rank for kPremulSum.
double Scale(int rank) { return rank % 2 == 0 ? 1 + rank % 3 : -2; }

ReduceScatterArgs Args(const P& p, const RankContext& context) {
  return {.send = context.in("x").data,
          .recv = context.out("y").data,
          .count = p.count,
          .dtype = p.dtype,
          .op = p.op,
          .scale = Scale(context.comm().rank())};
}

template <Status (*kRun)(const Communicator&, const ReduceScatterArgs&)>
StatusOr<Operation> Bind(const P& p, RankContext& context) {
  return Operation([&comm = context.comm(), args = Args(p, context)] {
    return kRun(comm, args);
  });
}

// MPI's form in place overwrites the whole buffer. Refused here, before the
// backend does: there a rank with an empty block cannot tell, and would enter
// what others refuse.
template <class Params>
Status CheckNative(const Params& p, const RankContext& context) {
  if (!p.in_place || context.comm().backend_name() != "mpi") return OkStatus();
  return Unsupported(
      "MPI's reduce_scatter in place overwrites the whole buffer");
}

StatusOr<Operation> BindNative(const P& p, RankContext& context) {
  SP_RETURN_IF_ERROR(CheckNative(p, context));
  return Bind<ReduceScatterNative>(p, context);
}

StatusOr<Operation> BindAuto(const P& p, RankContext& context) {
  return Operation([&context, args = Args(p, context)] {
    return ReduceScatter(context.comm(), args, context.stream());
  });
}

// The operation with arguments that live as long as it does.
template <class Run>
Operation WithArgs(const PV& p, RankContext& context, Run run) {
  return [&context, run, p, counts = LayoutOf(p).counts] {
    return run(context, ReduceScatterVArgs{
                            context.in("x").data, context.out("y").data, counts,
                            p.dtype, p.op, Scale(context.comm().rank())});
  };
}

template <Status (*kRun)(const Communicator&, const ReduceScatterVArgs&)>
StatusOr<Operation> BindV(const PV& p, RankContext& context) {
  return WithArgs(p, context,
                  [](RankContext& c, const ReduceScatterVArgs& args) {
                    return kRun(c.comm(), args);
                  });
}

StatusOr<Operation> BindNativeV(const PV& p, RankContext& context) {
  SP_RETURN_IF_ERROR(CheckNative(p, context));
  return BindV<ReduceScatterVNative>(p, context);
}

StatusOr<Operation> BindAutoV(const PV& p, RankContext& context) {
  return WithArgs(p, context,
                  [](RankContext& c, const ReduceScatterVArgs& args) {
                    return ReduceScatterV(c.comm(), args, c.stream());
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

template <Cost (*kCost)(std::span<const int64_t>, DType)>
Cost CostOfV(const PV& p) {
  return kCost(LayoutOf(p).counts, p.dtype);
}

template <Cost (*kCost)(std::span<const int64_t>, DType, Memory)>
Cost DirectCostOfV(const PV& p) {
  return kCost(LayoutOf(p).counts, p.dtype, p.memory);
}

template <class Params, Arithmetic (*kArithmetic)(int, DType, ReduceOp)>
Arithmetic ArithmeticOf(const Params& p) {
  return kArithmetic(p.ranks, p.dtype, p.op);
}

// Whether `auto` may send partial sums in dtype: between nodes, or where a table
// says so. In shared memory it folds at once, as `direct` does.
bool SendsPartials(const std::vector<int>& node_of) {
  return std::ranges::any_of(node_of, [](int node) { return node != 0; }) ||
         std::ranges::any_of(ActiveTuningOrNone().rows(), [](const auto& row) {
           return row.primitive == "reduce_scatter";
         });
}

// The ring adds as often as pairwise, and halving at most so.
template <class Params>
Arithmetic AutoArithmetic(const Params& p) {
  return SendsPartials(p.node_of)
             ? ReduceScatterRingArithmetic(p.ranks, p.dtype, p.op)
             : Arithmetic::For(p.dtype, p.ranks);
}

template <class Params>
int64_t Terms(const Params& p) {
  double terms = 0;
  for (int r = 0; r < p.ranks; ++r) {
    terms += p.op == ReduceOp::kPremulSum ? std::abs(Scale(r)) : 1;
  }
  return static_cast<int64_t>(terms);
}

// With factors, what stays exact needs the sum of their magnitudes to fit.
template <class Params>
std::optional<std::string> SumsTooLarge(const Params& p) {
  if (p.op != ReduceOp::kPremulSum || !IsFloat(p.dtype) ||
      Terms(p) < int64_t{1} << SignificandBits(p.dtype)) {
    return std::nullopt;
  }
  return "the factors add up to more than the type holds exactly";
}

template <class Params>
Tensors TensorsOf(const Params& p) {
  const Layout layout = LayoutOf(p);
  return {
      Input("x", p.dtype, {layout.extent()}, PerRank()).Terms(p.op, Terms(p)),
      Output("y", p.dtype, {layout.extent()}, ShardSizes(0, layout.counts))
          .InPlaceOf(
              p.in_place ? "x" : "",
              [begins = layout.displacements](int rank) {
                return begins[static_cast<size_t>(rank)];
              },
              /*input_is_part=*/false)
          .SampleDimension(0)};
}

template <class Params>
void Expected(const Params& p, const Arithmetic& arithmetic, const Inputs& in,
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
  ReduceScatterExpected(reduction, LayoutOf(p), input, query.rank, query.begin,
                        out);
}

template <class Params>
int64_t Bytes(const Params& p) {
  return Blocks::Listed(LayoutOf(p).counts).Total() * SizeOf(p.dtype);
}

template <class Params>
double BusbwFactor(const Params& p) {
  return static_cast<double>(p.ranks - 1) / p.ranks;
}

// All inputs are loaded and all blocks stored, by somebody.
template <class Params>
Floor FloorOf(const Params& p) {
  return {.copy_bytes = static_cast<double>(Bytes(p)) * (1 + 1.0 / p.ranks)};
}

// --- Planted bugs ------------------------------------------------------------

Status KeepsTheNextBlock(const Communicator& comm,
                         const ReduceScatterArgs& args) {
  const int p = comm.size(), next = (comm.rank() + 1) % p;
  std::vector<std::byte> block(
      static_cast<size_t>(args.count * SizeOf(args.dtype)));
  SP_RETURN_IF_ERROR([&] {
    ReduceScatterArgs apart = args;
    apart.recv = block.data();
    return ReduceScatterRing(comm, apart);
  }());
  // Hands its own block to the rank before.
  return comm.SendRecv(block.data(), block.size(), (comm.rank() + p - 1) % p,
                       args.recv, block.size(), next);
}

Status PairwiseWithoutLastStep(const Communicator& comm,
                               const ReduceScatterArgs& args) {
  const int p = comm.size(), r = comm.rank();
  const void* own = At(args.send, args.dtype, r * args.count);
  if (p == 2) {  // The last step is the only one.
    kernels::Copy(args.recv, own,
                  static_cast<size_t>(args.count * SizeOf(args.dtype)));
  }
  for (int k = 1; k < p - 1; ++k) {
    const int to = (r + k) % p;
    SP_RETURN_IF_ERROR(
        ReducingExchange(comm, Combine::For(args.dtype, args.op, p),
                         {.to = to,
                          .out = At(args.send, args.dtype, to * args.count),
                          .out_count = args.count,
                          .from = (r + p - k) % p,
                          .own = own,
                          .result = args.recv,
                          .count = args.count,
                          .finishes = k == p - 2}));
    own = args.recv;
  }
  return OkStatus();
}

// Every rank's block begins where an even cut would put it.
Status CutsEvenly(const Communicator& comm, const ReduceScatterVArgs& args) {
  const Blocks blocks = Blocks::Listed(args.counts);
  const Blocks even = Blocks::Balanced(blocks.Total(), comm.size());
  std::vector<int64_t> counts;
  for (int r = 0; r < comm.size(); ++r) counts.push_back(even.Count(r));
  const int rank = comm.rank();
  std::vector<std::byte> block(
      static_cast<size_t>(even.Count(rank) * SizeOf(args.dtype)));
  ReduceScatterVArgs wrong = args;
  wrong.counts = counts;
  wrong.recv = block.data();
  SP_RETURN_IF_ERROR(ReduceScatterVPairwise(comm, wrong));
  kernels::Copy(
      args.recv, block.data(),
      static_cast<size_t>(std::min(even.Count(rank), blocks.Count(rank)) *
                          SizeOf(args.dtype)));
  return OkStatus();
}

// --- The cases ---------------------------------------------------------------

bool Plain(const P& p) {
  return p.ranks >= 2 && p.count > 0 && p.op == ReduceOp::kSum;
}

std::vector<P> WorkloadOf(const Workload& workload, int ranks) {
  std::vector<P> out;
  for (const Workload::Message& message : workload.messages) {
    if (message.primitive != "reduce_scatter") continue;
    out.push_back(
        {.dtype = message.dtype, .count = message.count, .ranks = ranks});
  }
  return out;
}

const RegisterCase kReduceScatter(Case<P>{
    .name = "collectives/reduce_scatter",
    .what = "the reduction over all ranks, one block of it to each rank",
    .axes = {Axis("dtype", &P::dtype,
                  {DType::kF32, DType::kBF16, DType::kE5M2, DType::kI32})
                 .Bench({DType::kF32}),
             Axis("count", &P::count, {0, 1, 7, 1023, 40003})
                 .Bench({1, 4096, 65536, 1 << 20, 1 << 22})
                 .Smoke({1023}),
             Axis("op", &P::op,
                  {ReduceOp::kSum, ReduceOp::kMin, ReduceOp::kAvg,
                   ReduceOp::kPremulSum})
                 .Bench({ReduceOp::kSum}),
             Axis("in_place", &P::in_place, {false, true}).Bench({false})},
    .skip = SumsTooLarge<P>,
    .tensors = TensorsOf<P>,
    .reference = BlockReference<P>(Expected<P>),
    .variants =
        {{.name = "auto",
          .bind = BindAuto,
          .arithmetic = AutoArithmetic<P>,
          .note = "the fastest of the others here for this size"},
         {.name = "direct",
          .bind = Bind<ReduceScatterDirect>,
          .needs = kSharedMemory,
          .cost = DirectCostOf<ReduceScatterDirectCost>,
          .note = "every rank folds its block of all inputs, in rank order"},
         {.name = "ring",
          .bind = Bind<ReduceScatterRing>,
          .cost = CostOf<ReduceScatterRingCost>,
          .arithmetic = ArithmeticOf<P, ReduceScatterRingArithmetic>,
          .note = "every block travels once around and is added to"},
         {.name = "pairwise",
          .bind = Bind<ReduceScatterPairwise>,
          .cost = CostOf<ReduceScatterPairwiseCost>,
          .arithmetic = ArithmeticOf<P, ReduceScatterPairwiseArithmetic>,
          .note = "Thakur, Rabenseifner and Gropp, IJHPCA 19(1), 2005"},
         {.name = "halving",
          .bind = Bind<ReduceScatterHalving>,
          .cost = CostOf<ReduceScatterHalvingCost>,
          .arithmetic = ArithmeticOf<P, ReduceScatterHalvingArithmetic>,
          .note = "recursive halving; same source"},
         {.name = "native",
          .bind = BindNative,
          .native = true,
          .note = "MPI_Reduce_scatter_block"}},
    .mutants = {{.name = "keeps_the_next_block",
                 .bind = Bind<KeepsTheNextBlock>,
                 .applies = Plain},
                {.name = "pairwise_without_last_step",
                 .bind = Bind<PairwiseWithoutLastStep>,
                 .applies = Plain}},
    .bytes = Bytes<P>,
    .busbw_factor = BusbwFactor<P>,
    .floor = FloorOf<P>,
    .workload = WorkloadOf});

const RegisterCase kReduceScatterV(Case<PV>{
    .name = "collectives/reduce_scatter_v",
    .what = "reduce_scatter into blocks that differ in size",
    .axes = {Axis("dtype", &PV::dtype,
                  {DType::kF32, DType::kF16, DType::kF64, DType::kI8})
                 .Bench({DType::kF32}),
             Axis("count", &PV::count, {0, 1, 7, 1023, 40003})
                 .Bench({4096, 1 << 20})
                 .Smoke({1023}),
             Axis("op", &PV::op, {ReduceOp::kSum, ReduceOp::kAvg})
                 .Bench({ReduceOp::kSum}),
             Axis("in_place", &PV::in_place, {false, true}).Bench({false})},
    .skip = SumsTooLarge<PV>,
    .tensors = TensorsOf<PV>,
    .reference = BlockReference<PV>(Expected<PV>),
    .variants =
        {{.name = "auto",
          .bind = BindAutoV,
          .arithmetic = AutoArithmetic<PV>,
          .note = "the fastest of the others here for this size"},
         {.name = "direct",
          .bind = BindV<ReduceScatterVDirect>,
          .needs = kSharedMemory,
          .cost = DirectCostOfV<ReduceScatterVDirectCost>,
          .note = "every rank folds its block of all inputs, in rank order"},
         {.name = "ring",
          .bind = BindV<ReduceScatterVRing>,
          .cost = CostOfV<ReduceScatterVRingCost>,
          .arithmetic = ArithmeticOf<PV, ReduceScatterRingArithmetic>,
          .note = "every block travels once around and is added to"},
         {.name = "pairwise",
          .bind = BindV<ReduceScatterVPairwise>,
          .cost = CostOfV<ReduceScatterVPairwiseCost>,
          .arithmetic = ArithmeticOf<PV, ReduceScatterPairwiseArithmetic>,
          .note = "Thakur, Rabenseifner and Gropp, IJHPCA 19(1), 2005"},
         {.name = "halving",
          .bind = BindV<ReduceScatterVHalving>,
          .cost = CostOfV<ReduceScatterVHalvingCost>,
          .arithmetic = ArithmeticOf<PV, ReduceScatterHalvingArithmetic>,
          .note = "recursive halving; same source"},
         {.name = "native",
          .bind = BindNativeV,
          .native = true,
          .note = "MPI_Reduce_scatter"}},
    .mutants = {{.name = "cuts_evenly",
                 .bind = BindV<CutsEvenly>,
                 .applies =
                     [](const PV& p) {
                       return p.ranks >= 2 && p.count >= 6 &&
                              p.op == ReduceOp::kSum;
                     }}},
    .bytes = Bytes<PV>,
    .busbw_factor = BusbwFactor<PV>,
    .floor = FloorOf<PV>});

}  // namespace
}  // namespace shardproof
