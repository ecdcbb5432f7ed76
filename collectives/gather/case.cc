// The pairings of gather and gather_v: axes, reference, variants, planted bugs.
#include "tools/harness/case.h"

#include <optional>
#include <string>
#include <vector>

#include "collectives/chunks.h"
#include "collectives/gather/gather.h"
#include "collectives/kernels/copy.h"
#include "collectives/uneven.h"
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

struct PV {
  DType dtype = DType::kF32;
  int64_t count = 0;  // Of the largest block, about.
  bool gaps = false;
  int root = 0;
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

GatherArgs Args(const P& p, const RankContext& context) {
  return {context.in("x").data, context.out("y").data, p.count, p.dtype,
          p.root};
}

template <Status (*kRun)(const Communicator&, const GatherArgs&)>
StatusOr<Operation> Bind(const P& p, RankContext& context) {
  return Operation([&comm = context.comm(), args = Args(p, context)] {
    return kRun(comm, args);
  });
}

StatusOr<Operation> BindAuto(const P& p, RankContext& context) {
  return Operation([&context, args = Args(p, context)] {
    return Gather(context.comm(), args, context.stream());
  });
}

// The operation with arguments that live as long as it does.
template <class Run>
Operation WithArgs(const PV& p, RankContext& context, Run run) {
  return [&context, run, p, layout = LayoutOf(p)] {
    const std::span<const int64_t> offsets(layout.displacements);
    return run(
        context,
        GatherVArgs{context.in("x").data, context.out("y").data, layout.counts,
                    p.gaps ? offsets : std::span<const int64_t>(), p.dtype,
                    p.root});
  };
}

template <Status (*kRun)(const Communicator&, const GatherVArgs&)>
StatusOr<Operation> BindV(const PV& p, RankContext& context) {
  return WithArgs(p, context, [](RankContext& c, const GatherVArgs& args) {
    return kRun(c.comm(), args);
  });
}

StatusOr<Operation> BindAutoV(const PV& p, RankContext& context) {
  return WithArgs(p, context, [](RankContext& c, const GatherVArgs& args) {
    return GatherV(c.comm(), args, c.stream());
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

template <Cost (*kCost)(std::span<const int64_t>, DType, int)>
Cost CostOfV(const PV& p) {
  return kCost(LayoutOf(p).counts, p.dtype, p.root);
}

template <Cost (*kCost)(std::span<const int64_t>, DType, int, Memory)>
Cost DirectCostOfV(const PV& p) {
  return kCost(LayoutOf(p).counts, p.dtype, p.root, p.memory);
}

template <class Params>
std::optional<std::string> NoSuchRoot(const Params& p) {
  if (p.root < p.ranks) return std::nullopt;
  return fmt::format("there is no rank {} among {}", p.root, p.ranks);
}

template <class Params>
Tensors TensorsOf(const Params& p) {
  const Layout layout = LayoutOf(p);
  return {Input("x", p.dtype, {p.count}, PerRankSizes(0, layout.counts)),
          Output("y", p.dtype, {layout.extent()}, OnRank(p.root))
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
  GatherExpected(LayoutOf(p), p.root, input, query.rank, query.begin, out);
}

template <class Params>
int64_t Bytes(const Params& p) {
  return Blocks::Listed(LayoutOf(p).counts).Total() * SizeOf(p.dtype);
}

// All blocks are loaded and stored, by somebody.
template <class Params>
Floor FloorOf(const Params& p) {
  return {.copy_bytes = 2.0 * static_cast<double>(Bytes(p)) / p.ranks};
}

// --- Planted bugs ------------------------------------------------------------

// Rank 0 gets the result, in the root's stead.
Status RootIgnored(const Communicator& comm, const GatherArgs& args) {
  std::vector<std::byte> result(
      static_cast<size_t>(comm.size() * args.count * SizeOf(args.dtype)));
  GatherArgs wrong = args;
  wrong.root = 0;
  wrong.recv = result.data();
  return GatherLinear(comm, wrong);
}

// The blocks stay in the order of the tree: the root's first.
Status InTreeOrder(const Communicator& comm, const GatherArgs& args) {
  const int p = comm.size();
  const size_t block = static_cast<size_t>(args.count * SizeOf(args.dtype));
  std::vector<std::byte> result(static_cast<size_t>(p) * block);
  GatherArgs apart = args;
  apart.recv = result.data();
  SP_RETURN_IF_ERROR(GatherBinomial(comm, apart));
  if (comm.rank() != args.root) return OkStatus();
  for (int v = 0; v < p; ++v) {
    kernels::Copy(
        At(args.recv, args.dtype, v * args.count),
        result.data() + static_cast<size_t>((args.root + v) % p) * block,
        block);
  }
  return OkStatus();
}

// The last block is one element short.
Status LosesTheLastElement(const Communicator& comm, const GatherVArgs& args) {
  std::vector<int64_t> counts(args.counts.begin(), args.counts.end());
  const std::vector<int64_t> offsets = Layout::Packed(counts).displacements;
  for (size_t r = counts.size(); r-- > 0;) {
    if (counts[r] == 0) continue;
    --counts[r];
    break;
  }
  GatherVArgs cut = args;
  cut.counts = counts;
  if (cut.offsets.empty()) cut.offsets = offsets;
  return GatherVLinear(comm, cut);
}

const RegisterCase kGather(Case<P>{
    .name = "collectives/gather",
    .what = "the root gets the blocks of all ranks, in rank order",
    .axes = {Axis("dtype", &P::dtype,
                  {DType::kF32, DType::kBF16, DType::kU8, DType::kI64})
                 .Bench({DType::kF32}),
             Axis("count", &P::count, {0, 1, 7, 1023, 40003})
                 .Bench({1, 4096, 65536, 1 << 20, 1 << 22})
                 .Smoke({1023}),
             Axis("root", &P::root, {0, 1, 2}).Bench({0}),
             Axis("in_place", &P::in_place, {false, true}).Bench({false})},
    .skip = NoSuchRoot<P>,
    .tensors = TensorsOf<P>,
    .reference = BlockReference<P>(Expected<P>),
    .variants = {{.name = "auto",
                  .bind = BindAuto,
                  .note = "the fastest of the others here for this size"},
                 {.name = "direct",
                  .bind = Bind<GatherDirect>,
                  .needs = kSharedMemory,
                  .cost = DirectCostOf<GatherDirectCost>,
                  .note = "copies between the ranks' own buffers"},
                 {.name = "binomial",
                  .bind = Bind<GatherBinomial>,
                  .cost = CostOf<GatherBinomialCost>,
                  .note = "a tree of ceil(lg p) levels"},
                 {.name = "linear",
                  .bind = Bind<GatherLinear>,
                  .cost = CostOf<GatherLinearCost>,
                  .note = "every rank sends to the root"},
                 {.name = "native",
                  .bind = Bind<GatherNative>,
                  .native = true,
                  .note = "MPI_Gather"}},
    .mutants = {{.name = "root_ignored",
                 .bind = Bind<RootIgnored>,
                 .applies =
                     [](const P& p) {
                       return p.ranks >= 2 && p.count > 0 && p.root != 0;
                     }},
                {.name = "in_tree_order",
                 .bind = Bind<InTreeOrder>,
                 .applies =
                     [](const P& p) {
                       return p.ranks >= 2 && p.count > 0 && p.root != 0 &&
                              !p.in_place;
                     }}},
    .bytes = Bytes<P>,
    .floor = FloorOf<P>});

const RegisterCase kGatherV(Case<PV>{
    .name = "collectives/gather_v",
    .what = "gather of blocks that differ in size",
    .axes = {Axis("dtype", &PV::dtype, {DType::kF32, DType::kE5M2, DType::kF64})
                 .Bench({DType::kF32}),
             Axis("count", &PV::count, {0, 1, 7, 1023, 40003})
                 .Bench({4096, 1 << 20})
                 .Smoke({1023}),
             Axis("gaps", &PV::gaps, {false, true}).Bench({false}),
             Axis("root", &PV::root, {0, 1, 2}).Bench({0}),
             Axis("in_place", &PV::in_place, {false, true}).Bench({false})},
    .skip = NoSuchRoot<PV>,
    .tensors = TensorsOf<PV>,
    .reference = BlockReference<PV>(Expected<PV>),
    .variants = {{.name = "auto",
                  .bind = BindAutoV,
                  .note = "the fastest of the others here for this size"},
                 {.name = "direct",
                  .bind = BindV<GatherVDirect>,
                  .needs = kSharedMemory,
                  .cost = DirectCostOfV<GatherVDirectCost>,
                  .note = "copies between the ranks' own buffers"},
                 {.name = "binomial",
                  .bind = BindV<GatherVBinomial>,
                  .cost = CostOfV<GatherVBinomialCost>,
                  .note = "a tree of ceil(lg p) levels"},
                 {.name = "linear",
                  .bind = BindV<GatherVLinear>,
                  .cost = CostOfV<GatherVLinearCost>,
                  .note = "every rank sends to the root"},
                 {.name = "native",
                  .bind = BindV<GatherVNative>,
                  .native = true,
                  .note = "MPI_Gatherv"}},
    .mutants = {{.name = "loses_the_last_element",
                 .bind = BindV<LosesTheLastElement>,
                 .applies =
                     [](const PV& p) {
                       // In place the root's own block needs no moving.
                       return p.ranks >= 2 && p.count >= 6 && !p.in_place;
                     }}},
    .bytes = Bytes<PV>,
    .floor = FloorOf<PV>});

}  // namespace
}  // namespace shardproof
