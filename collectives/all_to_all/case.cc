// The pairings of all_to_all and all_to_all_v: axes, reference, variants,
// planted bugs.
#include "tools/harness/case.h"

#include <optional>
#include <string>
#include <vector>

#include "collectives/all_to_all/all_to_all.h"
#include "collectives/chunks.h"
#include "collectives/kernels/copy.h"
#include "collectives/uneven.h"
#include "reference/collectives.h"

namespace shardproof {
namespace {

struct P {
  DType dtype = DType::kF32;
  int64_t count = 0;  // Between each pair of ranks.
  bool in_place = false;
  int ranks = 1;
  Memory memory = Memory::kShared;
};

struct PV {
  DType dtype = DType::kF32;
  int64_t count = 0;  // Of the largest block, about.
  bool gaps = false;
  int ranks = 1;
  Memory memory = Memory::kShared;
};

AllToAllLayout LayoutOf(const P& p) {
  return AllToAllLayout::Even(p.ranks, p.count);
}
AllToAllLayout LayoutOf(const PV& p) {
  std::vector<std::vector<int64_t>> counts;
  for (int s = 0; s < p.ranks; ++s) {
    counts.push_back(UnevenCounts(p.ranks, p.count, s));
  }
  AllToAllLayout layout = AllToAllLayout::FromCounts(counts);
  for (auto* side : {&layout.send, &layout.recv}) {
    for (Layout& one : *side) {
      if (p.gaps) one.displacements = GappedOffsets(one.counts);
    }
  }
  return layout;
}

std::vector<int64_t> Extents(const std::vector<Layout>& side) {
  std::vector<int64_t> extents;
  for (const Layout& one : side) extents.push_back(one.extent());
  return extents;
}

AllToAllArgs Args(const P& p, const RankContext& context) {
  return {context.in("x").data, context.out("y").data, p.count, p.dtype};
}

template <Status (*kRun)(const Communicator&, const AllToAllArgs&)>
StatusOr<Operation> Bind(const P& p, RankContext& context) {
  return Operation([&comm = context.comm(), args = Args(p, context)] {
    return kRun(comm, args);
  });
}

StatusOr<Operation> BindAuto(const P& p, RankContext& context) {
  return Operation([&context, args = Args(p, context)] {
    return AllToAll(context.comm(), args, context.stream());
  });
}

// The operation with arguments that live as long as it does.
template <class Run>
Operation WithArgs(const PV& p, RankContext& context, Run run) {
  const AllToAllLayout layout = LayoutOf(p);
  const auto rank = static_cast<size_t>(context.comm().rank());
  return [&context, run, p, out = layout.send[rank], in = layout.recv[rank]] {
    AllToAllVArgs args{.send = context.in("x").data,
                       .recv = context.out("y").data,
                       .send_counts = out.counts,
                       .recv_counts = in.counts,
                       .dtype = p.dtype};
    if (p.gaps) {
      args.send_offsets = out.displacements;
      args.recv_offsets = in.displacements;
    }
    return run(context, args);
  };
}

template <Status (*kRun)(const Communicator&, const AllToAllVArgs&)>
StatusOr<Operation> BindV(const PV& p, RankContext& context) {
  return WithArgs(p, context, [](RankContext& c, const AllToAllVArgs& args) {
    return kRun(c.comm(), args);
  });
}

StatusOr<Operation> BindAutoV(const PV& p, RankContext& context) {
  return WithArgs(p, context, [](RankContext& c, const AllToAllVArgs& args) {
    return AllToAllV(c.comm(), args, c.stream());
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

// How much each rank sends to each, row by row.
std::vector<int64_t> PairCounts(const PV& p) {
  std::vector<int64_t> counts;
  for (const Layout& one : LayoutOf(p).send) {
    counts.insert(counts.end(), one.counts.begin(), one.counts.end());
  }
  return counts;
}

template <Cost (*kCost)(int, std::span<const int64_t>, DType)>
Cost CostOfV(const PV& p) {
  return kCost(p.ranks, PairCounts(p), p.dtype);
}

template <Cost (*kCost)(int, std::span<const int64_t>, DType, Memory)>
Cost DirectCostOfV(const PV& p) {
  return kCost(p.ranks, PairCounts(p), p.dtype, p.memory);
}

InputFn X(const Inputs& in) {
  return [&in](int rank, int64_t begin, std::span<double> block) {
    in.Read("x", rank, begin, block);
  };
}

void Expected(const P& p, const Arithmetic&, const Inputs& in,
              const BlockQuery& query, std::span<Bounded> out) {
  AllToAllExpected(p.count, X(in), query.rank, query.begin, out);
}

void ExpectedV(const PV& p, const Arithmetic&, const Inputs& in,
               const BlockQuery& query, std::span<Bounded> out) {
  AllToAllExpected(LayoutOf(p), X(in), query.rank, query.begin, out);
}

// Of one rank: the mean where they differ.
template <class Params>
int64_t Bytes(const Params& p) {
  int64_t elements = 0;
  for (const Layout& one : LayoutOf(p).send) {
    elements += Blocks::Listed(one.counts).Total();
  }
  return elements / p.ranks * SizeOf(p.dtype);
}

template <class Params>
double BusbwFactor(const Params& p) {
  return static_cast<double>(p.ranks - 1) / p.ranks;
}

template <class Params>
Floor FloorOf(const Params& p) {
  return {.copy_bytes = 2.0 * static_cast<double>(Bytes(p))};
}

// --- Planted bugs ------------------------------------------------------------

// In step k the block sent is the one for rank r - k, the way it comes from.
Status WrongDirection(const Communicator& comm, const AllToAllArgs& args) {
  const int p = comm.size(), r = comm.rank();
  const auto bytes = static_cast<size_t>(args.count * SizeOf(args.dtype));
  const std::vector<std::byte> input(static_cast<const std::byte*>(args.send),
                                     static_cast<const std::byte*>(args.send) +
                                         static_cast<size_t>(p) * bytes);
  for (int k = 0; k < p; ++k) {
    const int to = (r + k) % p, from = (r + p - k) % p;
    std::byte* block = At(args.recv, args.dtype, from * args.count);
    const std::byte* out = At(input.data(), args.dtype, from * args.count);
    if (k == 0) {
      kernels::Copy(block, out, bytes);
      continue;
    }
    SP_RETURN_IF_ERROR(comm.SendRecv(out, bytes, to, block, bytes, from));
  }
  return OkStatus();
}

Status WithoutItsOwnBlock(const Communicator& comm, const AllToAllArgs& args) {
  std::vector<std::byte> result(
      static_cast<size_t>(comm.size() * args.count * SizeOf(args.dtype)));
  AllToAllArgs apart = args;
  apart.recv = result.data();
  SP_RETURN_IF_ERROR(AllToAllPairwise(comm, apart));
  for (int r = 0; r < comm.size(); ++r) {
    if (r == comm.rank()) continue;
    kernels::Copy(At(args.recv, args.dtype, r * args.count),
                  At(result.data(), args.dtype, r * args.count),
                  static_cast<size_t>(args.count * SizeOf(args.dtype)));
  }
  return OkStatus();
}

// What arrives is packed, whatever the offsets say.
Status IgnoresOffsets(const Communicator& comm, const AllToAllVArgs& args) {
  AllToAllVArgs packed = args;
  packed.recv_offsets = {};
  return AllToAllVPairwise(comm, packed);
}

// What leaves is taken from where an even cut would put it.
Status CutsEvenly(const Communicator& comm, const AllToAllVArgs& args) {
  const Blocks out = Blocks::Listed(args.send_counts, args.send_offsets);
  std::vector<int64_t> offsets;
  for (int r = 0; r < comm.size(); ++r) {
    const int64_t even = BalancedChunk(out.Extent(), comm.size(), r).begin;
    offsets.push_back(std::min(even, out.Extent() - out.Count(r)));
  }
  AllToAllVArgs wrong = args;
  wrong.send_offsets = offsets;
  return AllToAllVPairwise(comm, wrong);
}

std::vector<P> WorkloadOf(const Workload& workload, int ranks) {
  std::vector<P> out;
  for (const Workload::Message& message : workload.messages) {
    if (message.primitive != "all_to_all") continue;
    out.push_back(
        {.dtype = message.dtype, .count = message.count, .ranks = ranks});
  }
  return out;
}

const RegisterCase kAllToAll(Case<P>{
    .name = "collectives/all_to_all",
    .what = "every rank gets one block from every rank",
    .axes = {Axis("dtype", &P::dtype,
                  {DType::kF32, DType::kBF16, DType::kE4M3, DType::kI64})
                 .Bench({DType::kF32}),
             Axis("count", &P::count, {0, 1, 7, 1023, 20001})
                 .Bench({1, 4096, 65536, 1 << 20})
                 .Smoke({1023}),
             Axis("in_place", &P::in_place, {false, true}).Bench({false})},
    .tensors = [](const P& p) -> Tensors {
      return {Input("x", p.dtype, {p.count * p.ranks}, PerRank()),
              Output("y", p.dtype, {p.count * p.ranks}, PerRank())
                  .InPlaceOf(p.in_place ? "x" : "")
                  .SampleDimension(0)
                  .SignOfZero()};
    },
    .reference = BlockReference<P>(Expected),
    .variants = {{.name = "auto",
                  .bind = BindAuto,
                  .note = "the fastest of the others here for this size"},
                 {.name = "direct",
                  .bind = Bind<AllToAllDirect>,
                  .needs = kSharedMemory,
                  .cost = DirectCostOf<AllToAllDirectCost>,
                  .note = "copies between the ranks' own buffers"},
                 {.name = "pairwise",
                  .bind = Bind<AllToAllPairwise>,
                  .cost = CostOf<AllToAllPairwiseCost>,
                  .note = "every block travels once, to rank r + k in step k"},
                 {.name = "bruck",
                  .bind = Bind<AllToAllBruck>,
                  .cost = CostOf<AllToAllBruckCost>,
                  .note = "Bruck et al., IEEE TPDS 8(11), 1997"},
                 {.name = "native",
                  .bind = Bind<AllToAllNative>,
                  .native = true,
                  .note = "MPI_Alltoall"}},
    .mutants = {{.name = "wrong_direction",
                 .bind = Bind<WrongDirection>,
                 // Of two ranks, each is in both directions of the other.
                 .applies =
                     [](const P& p) { return p.ranks >= 3 && p.count > 0; }},
                {.name = "without_its_own_block",
                 .bind = Bind<WithoutItsOwnBlock>,
                 .applies =
                     [](const P& p) {
                       return p.ranks >= 2 && p.count > 0 && !p.in_place;
                     }}},
    .bytes = Bytes<P>,
    .busbw_factor = BusbwFactor<P>,
    .floor = FloorOf<P>,
    .workload = WorkloadOf});

const RegisterCase kAllToAllV(Case<PV>{
    .name = "collectives/all_to_all_v",
    .what = "all_to_all of blocks that differ in size",
    .axes = {Axis("dtype", &PV::dtype,
                  {DType::kF32, DType::kF16, DType::kU8, DType::kF64})
                 .Bench({DType::kF32}),
             Axis("count", &PV::count, {0, 1, 7, 1023, 20001})
                 .Bench({4096, 1 << 20})
                 .Smoke({1023}),
             Axis("gaps", &PV::gaps, {false, true}).Bench({false})},
    .tensors = [](const PV& p) -> Tensors {
      const AllToAllLayout layout = LayoutOf(p);
      return {
          Input("x", p.dtype, {p.count}, PerRankSizes(0, Extents(layout.send))),
          Output("y", p.dtype, {p.count}, PerRankSizes(0, Extents(layout.recv)))
              .SampleDimension(0)
              .SignOfZero()};
    },
    .reference = BlockReference<PV>(ExpectedV),
    .variants = {{.name = "auto",
                  .bind = BindAutoV,
                  .note = "the fastest of the others here for this size"},
                 {.name = "direct",
                  .bind = BindV<AllToAllVDirect>,
                  .needs = kSharedMemory,
                  .cost = DirectCostOfV<AllToAllVDirectCost>,
                  .note = "copies between the ranks' own buffers"},
                 {.name = "pairwise",
                  .bind = BindV<AllToAllVPairwise>,
                  .cost = CostOfV<AllToAllVPairwiseCost>,
                  .note = "every block travels once, to rank r + k in step k"},
                 {.name = "native",
                  .bind = BindV<AllToAllVNative>,
                  .native = true,
                  .note = "MPI_Alltoallv"}},
    .mutants = {{.name = "ignores_offsets",
                 .bind = BindV<IgnoresOffsets>,
                 .applies =
                     [](const PV& p) {
                       return p.ranks >= 2 && p.gaps && p.count >= 6;
                     }},
                {.name = "cuts_evenly",
                 .bind = BindV<CutsEvenly>,
                 .applies =
                     [](const PV& p) { return p.ranks >= 2 && p.count >= 6; }}},
    .bytes = Bytes<PV>,
    .busbw_factor = BusbwFactor<PV>,
    .floor = FloorOf<PV>});

}  // namespace
}  // namespace shardproof
