// The pairings of all_gather and all_gather_v: axes, reference, variants,
// planted bugs.
#include "tools/harness/case.h"

#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "collectives/all_gather/all_gather.h"
#include "collectives/chunks.h"
#include "collectives/kernels/copy.h"
#include "collectives/uneven.h"
#include "reference/collectives.h"

namespace shardproof {
namespace {

struct P {
  DType dtype = DType::kF32;
  int64_t count = 0;
  bool in_place = false;
  int ranks = 1;
  Memory memory = Memory::kShared;
};

struct PV {
  DType dtype = DType::kF32;
  int64_t count = 0;  // Of the largest block, about.
  bool gaps = false;
  bool in_place = false;
  int ranks = 1;
  Memory memory = Memory::kShared;
};

Layout LayoutOf(const P& p) { return Layout::Even(p.ranks, p.count); }
Layout LayoutOf(const PV& p) {
  Layout layout = Layout::Packed(UnevenCounts(p.ranks, p.count));
  if (p.gaps) layout.displacements = GappedOffsets(layout.counts);
  return layout;
}

template <Status (*kRun)(const Communicator&, const AllGatherArgs&)>
StatusOr<Operation> Bind(const P& p, RankContext& context) {
  const AllGatherArgs args{context.in("x").data, context.out("y").data, p.count,
                           p.dtype};
  return Operation([&comm = context.comm(), args] { return kRun(comm, args); });
}

StatusOr<Operation> BindAuto(const P& p, RankContext& context) {
  const AllGatherArgs args{context.in("x").data, context.out("y").data, p.count,
                           p.dtype};
  return Operation([&context, args] {
    return AllGather(context.comm(), args, context.stream());
  });
}

// The operation with arguments that live as long as it does.
template <class Run>
Operation WithArgs(const PV& p, RankContext& context, Run run) {
  return [&context, run, dtype = p.dtype, gaps = p.gaps, layout = LayoutOf(p)] {
    const std::span<const int64_t> offsets(layout.displacements);
    return run(context,
               AllGatherVArgs{
                   context.in("x").data, context.out("y").data, layout.counts,
                   gaps ? offsets : std::span<const int64_t>(), dtype});
  };
}

template <Status (*kRun)(const Communicator&, const AllGatherVArgs&)>
StatusOr<Operation> BindV(const PV& p, RankContext& context) {
  return WithArgs(p, context, [](RankContext& c, const AllGatherVArgs& args) {
    return kRun(c.comm(), args);
  });
}

StatusOr<Operation> BindAutoV(const PV& p, RankContext& context) {
  return WithArgs(p, context, [](RankContext& c, const AllGatherVArgs& args) {
    return AllGatherV(c.comm(), args, c.stream());
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

template <class Params>
Tensors TensorsOf(const Params& p) {
  const Layout layout = LayoutOf(p);
  return {Input("x", p.dtype, {p.count}, PerRankSizes(0, layout.counts)),
          Output("y", p.dtype, {layout.extent()}, Replicated())
              .InPlaceOf(
                  p.in_place ? "x" : "",
                  [begins = layout.displacements](int rank) {
                    return begins[static_cast<size_t>(rank)];
                  },
                  /*input_is_part=*/true)
              .SampleDimension(0)
              .SignOfZero()};
}

template <class Params>
void Expected(const Params& p, const Arithmetic&, const Inputs& in,
              const BlockQuery& query, std::span<Bounded> out) {
  const InputFn input = [&in](int rank, int64_t begin,
                              std::span<double> block) {
    in.Read("x", rank, begin, block);
  };
  AllGatherExpected(LayoutOf(p), input, query.rank, query.begin, out);
}

template <class Params>
int64_t Bytes(const Params& p) {
  return Blocks::Listed(LayoutOf(p).counts).Total() * SizeOf(p.dtype);
}

template <class Params>
double BusbwFactor(const Params& p) {
  return static_cast<double>(p.ranks - 1) / p.ranks;
}

// A rank stores all blocks, and loads at least its own.
template <class Params>
Floor FloorOf(const Params& p) {
  return {.copy_bytes = static_cast<double>(Bytes(p)) * (1 + 1.0 / p.ranks)};
}

// --- Planted bugs ------------------------------------------------------------

Status RingWithoutLastStep(const Communicator& comm,
                           const AllGatherArgs& args) {
  const int p = comm.size(), r = comm.rank();
  const auto bytes = static_cast<size_t>(args.count * SizeOf(args.dtype));
  const auto block = [&](int back) {
    return At(args.recv, args.dtype, (r + p - back) % p * args.count);
  };
  kernels::Copy(block(0), args.send, bytes);
  for (int t = 0; t < p - 2; ++t) {
    SP_RETURN_IF_ERROR(comm.SendRecv(block(t), bytes, (r + 1) % p, block(t + 1),
                                     bytes, (r + p - 1) % p));
  }
  return OkStatus();
}

// Bruck's algorithm without its last pass: every rank's own block comes first.
Status BruckWithoutRotation(const Communicator& comm,
                            const AllGatherArgs& args) {
  const int p = comm.size(), r = comm.rank();
  const auto bytes = static_cast<size_t>(args.count * SizeOf(args.dtype));
  const auto place = [&](int i) {
    return At(args.recv, args.dtype, i * args.count);
  };
  std::vector<std::byte> own(bytes);
  kernels::Copy(own.data(), args.send, bytes);
  kernels::Copy(place(0), own.data(), bytes);
  for (int i = 1; i < p; ++i) {
    SP_RETURN_IF_ERROR(comm.SendRecv(own.data(), bytes, (r + p - i) % p,
                                     place(i), bytes, (r + i) % p));
  }
  return OkStatus();
}

// Blocks one after another, whatever the offsets say.
Status IgnoresOffsets(const Communicator& comm, const AllGatherVArgs& args) {
  AllGatherVArgs packed = args;
  packed.offsets = {};
  return AllGatherVRing(comm, packed);
}

// All blocks taken to be as long as the first.
Status TruncatesToTheFirst(const Communicator& comm,
                           const AllGatherVArgs& args) {
  std::vector<int64_t> counts(args.counts.begin(), args.counts.end());
  for (int64_t& count : counts) count = std::min(count, counts.front());
  const std::vector<int64_t> offsets =
      Layout::Packed({args.counts.begin(), args.counts.end()}).displacements;
  AllGatherVArgs cut = args;
  cut.counts = counts;
  if (cut.offsets.empty()) cut.offsets = offsets;
  return AllGatherVRing(comm, cut);
}

std::vector<P> WorkloadOf(const Workload& workload, int ranks) {
  std::vector<P> out;
  for (const Workload::Message& message : workload.messages) {
    if (message.primitive != "all_gather") continue;
    out.push_back(
        {.dtype = message.dtype, .count = message.count, .ranks = ranks});
  }
  return out;
}

const RegisterCase kAllGather(Case<P>{
    .name = "collectives/all_gather",
    .what = "every rank gets the blocks of all ranks, in rank order",
    .axes = {Axis("dtype", &P::dtype,
                  {DType::kF32, DType::kBF16, DType::kE4M3, DType::kI64})
                 .Bench({DType::kF32}),
             Axis("count", &P::count, {0, 1, 7, 1023, 40003})
                 .Bench({1, 4096, 65536, 1 << 20, 1 << 22})
                 .Smoke({1023}),
             Axis("in_place", &P::in_place, {false, true}).Bench({false})},
    .tensors = TensorsOf<P>,
    .reference = BlockReference<P>(Expected<P>),
    .variants = {{.name = "auto",
                  .bind = BindAuto,
                  .note = "the fastest of the others here for this size"},
                 {.name = "direct",
                  .bind = Bind<AllGatherDirect>,
                  .needs = kSharedMemory,
                  .cost = DirectCostOf<AllGatherDirectCost>,
                  .note = "copies between the ranks' own buffers"},
                 {.name = "ring",
                  .bind = Bind<AllGatherRing>,
                  .cost = CostOf<AllGatherRingCost>,
                  .note = "every block travels once around"},
                 {.name = "recursive_doubling",
                  .bind = Bind<AllGatherRecursiveDoubling>,
                  .cost = CostOf<AllGatherRecursiveDoublingCost>,
                  .note = "Thakur, Rabenseifner and Gropp, IJHPCA 19(1), 2005"},
                 {.name = "bruck",
                  .bind = Bind<AllGatherBruck>,
                  .cost = CostOf<AllGatherBruckCost>,
                  .note = "Bruck et al., IEEE TPDS 8(11), 1997"},
                 {.name = "native",
                  .bind = Bind<AllGatherNative>,
                  .native = true,
                  .note = "MPI_Allgather"}},
    .mutants = {{.name = "ring_without_last_step",
                 .bind = Bind<RingWithoutLastStep>},
                {.name = "bruck_without_rotation",
                 .bind = Bind<BruckWithoutRotation>}},
    .bytes = Bytes<P>,
    .busbw_factor = BusbwFactor<P>,
    .floor = FloorOf<P>,
    .workload = WorkloadOf});

const RegisterCase kAllGatherV(Case<PV>{
    .name = "collectives/all_gather_v",
    .what = "all_gather of blocks that differ in size",
    .axes = {Axis("dtype", &PV::dtype,
                  {DType::kF32, DType::kF16, DType::kU8, DType::kF64})
                 .Bench({DType::kF32}),
             Axis("count", &PV::count, {0, 1, 7, 1023, 40003})
                 .Bench({4096, 1 << 20})
                 .Smoke({1023}),
             Axis("gaps", &PV::gaps, {false, true}).Bench({false}),
             Axis("in_place", &PV::in_place, {false, true}).Bench({false})},
    .tensors = TensorsOf<PV>,
    .reference = BlockReference<PV>(Expected<PV>),
    .variants = {{.name = "auto",
                  .bind = BindAutoV,
                  .note = "the fastest of the others here for this size"},
                 {.name = "direct",
                  .bind = BindV<AllGatherVDirect>,
                  .needs = kSharedMemory,
                  .cost = DirectCostOfV<AllGatherVDirectCost>,
                  .note = "copies between the ranks' own buffers"},
                 {.name = "ring",
                  .bind = BindV<AllGatherVRing>,
                  .cost = CostOfV<AllGatherVRingCost>,
                  .note = "every block travels once around"},
                 {.name = "bruck",
                  .bind = BindV<AllGatherVBruck>,
                  .cost = CostOfV<AllGatherVBruckCost>,
                  .note = "Bruck et al., IEEE TPDS 8(11), 1997"},
                 {.name = "native",
                  .bind = BindV<AllGatherVNative>,
                  .native = true,
                  .note = "MPI_Allgatherv"}},
    .mutants = {{.name = "ignores_offsets",
                 .bind = BindV<IgnoresOffsets>,
                 .applies =
                     [](const PV& p) {
                       return p.ranks >= 2 && p.gaps && p.count >= 6;
                     }},
                {.name = "truncates_to_the_first",
                 .bind = BindV<TruncatesToTheFirst>,
                 // Some block is longer than the first from three ranks up.
                 .applies =
                     [](const PV& p) { return p.ranks >= 3 && p.count >= 6; }}},
    .bytes = Bytes<PV>,
    .busbw_factor = BusbwFactor<PV>,
    .floor = FloorOf<PV>});

}  // namespace
}  // namespace shardproof
