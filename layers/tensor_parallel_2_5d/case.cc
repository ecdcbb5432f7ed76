// The pairing of tensor_parallel_2_5d: its mesh, and bugs that are its own.
#include "tools/harness/case.h"

#include <optional>
#include <string>
#include <vector>

#include "layers/pairing/mesh_linear_case.h"
#include "layers/tensor_parallel_2_5d/tensor_parallel_2_5d.h"

namespace shardproof {
namespace {

using P = MeshLinearPoint;
using Layer = TensorParallel2p5dLinear;
using Bug = MeshLinearBug<Layer>;

TensorParallel2p5dConfig ConfigOf(const P& p) {
  return {.linear = MeshLinearConfigOf(p), .depth = p.depth};
}

StatusOr<Layer> Make(const P& p, const Communicator& comm,
                     const CollectiveFamily& collectives) {
  return Layer::Create(comm, ConfigOf(p), collectives);
}

int Side(const P& p) { return SquareSide(p.ranks / p.depth); }

bool IsMesh(int ranks, int depth) {
  return ranks % depth == 0 && SquareSide(ranks / depth) > 0;
}

std::optional<std::string> Skip(const P& p) {
  if (IsMesh(p.ranks, p.depth)) return std::nullopt;
  return fmt::format("{} ranks are no {} times a square", p.ranks, p.depth);
}

Tensors TensorsOf(const P& p) {
  return MeshLinearTensors(
      p,
      {.x = "tokens by depth and row, inputs by column",
       .w = "outputs by column, inputs by row, the same at every depth",
       .b = "by column, in the first row, the same at every depth",
       .y = "tokens by depth and row, outputs by column"},
      [config = ConfigOf(p), side = Side(p)](int rank) {
        return BlocksIn2p5d(config, side, rank);
      });
}

// y is accumulated in panels, dx reduced over rows, dw and db over columns and
// then depths.
StatusOr<DenseOutputs> Expected(const P& p, const Arithmetic& reduced,
                                const Inputs& in, const Sample& sample) {
  const Arithmetic over_depth = SummedTwice(reduced, p.depth);
  return MeshLinearExpected(p,
                            {.y = AccumulatedInSteps(p.dtype, Side(p), p.in),
                             .dx = reduced,
                             .dw = over_depth,
                             .db = over_depth},
                            in, sample);
}

Arithmetic Reduced(const P& p, const CollectiveFamily& collectives) {
  return collectives.reduced(Side(p), p.dtype);
}

Cost CostOf(const P& p, const CollectiveFamily& collectives) {
  return TensorParallel2p5dForwardCost(p.ranks, ConfigOf(p), collectives) +
         TensorParallel2p5dBackwardCost(p.ranks, ConfigOf(p), collectives);
}

// --- Planted bugs ------------------------------------------------------------

// Sums of blocks of `kMatrix` over `kFrom` take place over `kTo`; or all
// nowhere.
template <MeshBlock MeshLinearBlocks::*kMatrix,
          const Communicator& (*kFrom)(const Layer&),
          const Communicator& (*kTo)(const Layer&)>
Status Instead(const Layer& layer) {
  SP_ASSIGN_OR_RETURN(Misdirection* const sums, MisdirectionOf(kFrom(layer)));
  sums->instead = kTo(layer);
  sums->count = (layer.blocks().*kMatrix).count();
  return OkStatus();
}
template <const Communicator& (*kFrom)(const Layer&)>
Status Nowhere(const Layer& layer) {
  SP_ASSIGN_OR_RETURN(Misdirection* const sums, MisdirectionOf(kFrom(layer)));
  sums->keeps_own_term = true;
  return OkStatus();
}
const Communicator& Row(const Layer& layer) { return layer.plane().row(); }
const Communicator& Column(const Layer& layer) {
  return layer.plane().column();
}
const Communicator& Depth(const Layer& layer) { return layer.depth(); }

constexpr MeshBlock MeshLinearBlocks::*kX = &MeshLinearBlocks::x;
constexpr MeshBlock MeshLinearBlocks::*kW = &MeshLinearBlocks::w;

// Within a depth.
int Transposed(const P& p, int rank) {
  const int q = Side(p), place = rank % (q * q);
  return rank - place + place % q * q + place / q;
}
int OtherRows(const P& p) { return Side(p) - 1; }
int OtherDepths(const P& p) { return p.depth - 1; }

bool Flat(const P& p) { return Side(p) >= 2; }
bool Deep(const P& p) { return p.depth >= 2; }
// Every step has inputs.
bool Full(const P& p) { return Flat(p) && p.in >= Side(p); }
// All ranks' blocks are of one size.
bool Even(const P& p) {
  return Flat(p) && p.tokens % (p.depth * Side(p)) == 0 &&
         p.in % Side(p) == 0 && p.out % Side(p) == 0;
}
// As many rows and columns as depths.
bool Cube(const P& p) { return Even(p) && Side(p) == p.depth; }

Mutant<P> Planted2p5d(std::string name, Bug bug, bool (*applies)(const P&)) {
  return MeshLinearMutant<Layer>(std::move(name), Make, std::move(bug),
                                 applies);
}
Mutant<P> Misdirected(std::string name, Status (*arrange)(const Layer&),
                      bool (*applies)(const P&)) {
  return Planted2p5d(std::move(name),
                     {.collectives = kMisdirected, .arrange = arrange},
                     applies);
}

std::vector<Mutant<P>> Mutants() {
  return {Misdirected("depth_gradients_not_summed", Nowhere<Depth>, Deep),
          Planted2p5d("depth_gradients_averaged", {.collectives = kAveraging},
                      Deep),
          Misdirected("depth_gradients_summed_over_rows",
                      Instead<kW, Depth, Row>, Cube),
          Misdirected("depth_gradients_summed_over_columns",
                      Instead<kW, Depth, Column>, Cube),
          Misdirected("weight_gradient_reduced_over_depth",
                      Instead<kW, Column, Depth>, Cube),
          Misdirected("input_gradient_reduced_over_columns",
                      Instead<kX, Row, Column>, Even),
          Misdirected("input_gradient_left_partial", Nowhere<Row>, Flat),
          Misdirected("weight_gradient_left_partial", Nowhere<Column>, Flat),
          Planted2p5d("last_broadcast_missed",
                      {.collectives = kMissingTheLastBroadcast}, Full),
          Planted2p5d("weight_blocks_transposed",
                      WithTheWeightOf<Layer>(Transposed), Even),
          Planted2p5d("bias_added_in_every_step",
                      WithTheBiasAgain<Layer>(OtherRows), Flat),
          Planted2p5d("bias_added_at_every_depth",
                      WithTheBiasAgain<Layer>(OtherDepths), Deep)};
}

std::vector<AxisOf<P>> Axes() {
  std::vector<AxisOf<P>> axes = MeshLinearAxes();
  axes.push_back(Axis("depth", &P::depth, {1, 2}).Smoke({1, 2}));
  return axes;
}

// As deep as ranks allow, up to two.
std::vector<P> WorkloadOf(const Workload& workload, int ranks) {
  std::vector<P> points = MeshLinearWorkload(workload, ranks);
  for (P& p : points) p.depth = IsMesh(ranks, 2) ? 2 : 1;
  if (!IsMesh(ranks, 2) && !IsMesh(ranks, 1)) points.clear();
  return points;
}

const RegisterCase kTensorParallel2p5d(Case<P>{
    .name = "layers/tensor_parallel_2_5d",
    .what = "y = x w^T + b on a q x q x d mesh: SUMMA on the tokens of each "
            "depth, weight gradients summed over depths",
    .axes = Axes(),
    .skip = Skip,
    .tensors = TensorsOf,
    .reference = DenseReference<P>(Expected),
    .variants = MeshLinearVariants<Layer>(Make, CostOf, Reduced),
    .mutants = Mutants(),
    .flops = MeshLinearFlops,
    .floor =
        [](const P& p) { return Floor{.flops = MeshLinearFlops(p) / p.ranks}; },
    .workload = WorkloadOf});

}  // namespace
}  // namespace shardproof
