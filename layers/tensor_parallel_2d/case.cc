// The pairing of tensor_parallel_2d: its mesh, and bugs that are its own.
#include "tools/harness/case.h"

#include <optional>
#include <string>
#include <vector>

#include "layers/pairing/mesh_linear_case.h"
#include "layers/tensor_parallel_2d/tensor_parallel_2d.h"

namespace shardproof {
namespace {

using P = MeshLinearPoint;
using Layer = TensorParallel2dLinear;
using Bug = MeshLinearBug<Layer>;

StatusOr<Layer> Make(const P& p, const Communicator& comm,
                     const CollectiveFamily& collectives) {
  return Layer::Create(comm, MeshLinearConfigOf(p), collectives);
}

int Side(const P& p) { return SquareSide(p.ranks); }

std::optional<std::string> Skip(const P& p) {
  if (Side(p) > 0) return std::nullopt;
  return fmt::format("{} ranks are no square", p.ranks);
}

Tensors TensorsOf(const P& p) {
  return MeshLinearTensors(
      p,
      {.x = "tokens by row, inputs by column",
       .w = "outputs by column, inputs by row",
       .b = "by column, in the first row",
       .y = "tokens by row, outputs by column"},
      [config = MeshLinearConfigOf(p), side = Side(p)](int rank) {
        return BlocksIn2d(config, side, rank);
      });
}

// y is accumulated in panels, all else reduced over rows or columns.
StatusOr<DenseOutputs> Expected(const P& p, const Arithmetic& reduced,
                                const Inputs& in, const Sample& sample) {
  return MeshLinearExpected(p,
                            {.y = AccumulatedInSteps(p.dtype, Side(p), p.in),
                             .dx = reduced,
                             .dw = reduced,
                             .db = reduced},
                            in, sample);
}

Arithmetic Reduced(const P& p, const CollectiveFamily& collectives) {
  return collectives.reduced(Side(p), p.dtype);
}

Cost CostOf(const P& p, const CollectiveFamily& collectives) {
  const MeshLinearConfig config = MeshLinearConfigOf(p);
  return TensorParallel2dForwardCost(p.ranks, config, collectives) +
         TensorParallel2dBackwardCost(p.ranks, config, collectives);
}

// --- Planted bugs ------------------------------------------------------------

// dx is reduced down the column instead of along the row: as many ranks.
Status InputGradientOverColumns(const Layer& layer) {
  SP_ASSIGN_OR_RETURN(Misdirection* const row, MisdirectionOf(layer.row()));
  row->instead = layer.column();
  row->count = layer.blocks().x.count();
  return OkStatus();
}
Status WeightGradientOverRows(const Layer& layer) {
  SP_ASSIGN_OR_RETURN(Misdirection* const column,
                      MisdirectionOf(layer.column()));
  column->instead = layer.row();
  column->count = layer.blocks().w.count();
  return OkStatus();
}
Status NoReductionOverRows(const Layer& layer) {
  SP_ASSIGN_OR_RETURN(Misdirection* const row, MisdirectionOf(layer.row()));
  row->keeps_own_term = true;
  return OkStatus();
}
Status NoReductionOverColumns(const Layer& layer) {
  SP_ASSIGN_OR_RETURN(Misdirection* const column,
                      MisdirectionOf(layer.column()));
  column->keeps_own_term = true;
  return OkStatus();
}

int Transposed(const P& p, int rank) {
  return rank % Side(p) * Side(p) + rank / Side(p);
}
int OtherRows(const P& p) { return Side(p) - 1; }

bool Several(const P& p) { return p.ranks >= 2; }
// Every step has inputs.
bool Full(const P& p) { return Several(p) && p.in >= Side(p); }
// All ranks' blocks are of one size.
bool Even(const P& p) {
  return Several(p) && p.tokens % Side(p) == 0 && p.in % Side(p) == 0 &&
         p.out % Side(p) == 0;
}

Mutant<P> Planted2d(std::string name, Bug bug, bool (*applies)(const P&)) {
  return MeshLinearMutant<Layer>(std::move(name), Make, std::move(bug),
                                 applies);
}

std::vector<P> WorkloadOf(const Workload& workload, int ranks) {
  if (SquareSide(ranks) == 0) return {};
  return MeshLinearWorkload(workload, ranks);
}

const RegisterCase kTensorParallel2d(Case<P>{
    .name = "layers/tensor_parallel_2d",
    .what = "y = x w^T + b on a q x q mesh, x, w and y cut both ways: SUMMA, "
            "panels broadcast along rows and columns, gradients reduced",
    .axes = MeshLinearAxes(),
    .skip = Skip,
    .tensors = TensorsOf,
    .reference = DenseReference<P>(Expected),
    .variants = MeshLinearVariants<Layer>(Make, CostOf, Reduced),
    .mutants = {Planted2d("input_gradient_reduced_over_columns",
                          {.collectives = kMisdirected,
                           .arrange = InputGradientOverColumns},
                          Even),
                Planted2d("weight_gradient_reduced_over_rows",
                          {.collectives = kMisdirected,
                           .arrange = WeightGradientOverRows},
                          Even),
                Planted2d("input_gradient_left_partial",
                          {.collectives = kMisdirected,
                           .arrange = NoReductionOverRows},
                          Several),
                Planted2d("weight_gradient_left_partial",
                          {.collectives = kMisdirected,
                           .arrange = NoReductionOverColumns},
                          Several),
                Planted2d("last_broadcast_missed",
                          {.collectives = kMissingTheLastBroadcast}, Full),
                Planted2d("weight_blocks_transposed",
                          WithTheWeightOf<Layer>(Transposed), Even),
                Planted2d("bias_added_in_every_step",
                          WithTheBiasAgain<Layer>(OtherRows), Several)},
    .flops = MeshLinearFlops,
    .floor =
        [](const P& p) { return Floor{.flops = MeshLinearFlops(p) / p.ranks}; },
    .workload = WorkloadOf});

}  // namespace
}  // namespace shardproof
