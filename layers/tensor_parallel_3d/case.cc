// The pairing of tensor_parallel_3d: its cube, and bugs that are its own.
#include "tools/harness/case.h"

#include <optional>
#include <string>
#include <vector>

#include "layers/pairing/mesh_linear_case.h"
#include "layers/tensor_parallel_3d/tensor_parallel_3d.h"

namespace shardproof {
namespace {

using P = MeshLinearPoint;
using Layer = TensorParallel3dLinear;
using Bug = MeshLinearBug<Layer>;

TensorParallel3dConfig ConfigOf(const P& p) {
  return {.linear = MeshLinearConfigOf(p), .swapped = p.swapped};
}

StatusOr<Layer> Make(const P& p, const Communicator& comm,
                     const CollectiveFamily& collectives) {
  return Layer::Create(comm, ConfigOf(p), collectives);
}

int Side(const P& p) { return CubeSide(p.ranks); }

std::optional<std::string> Skip(const P& p) {
  if (Side(p) == 0) return fmt::format("{} ranks are no cube", p.ranks);
  if (p.swapped && p.dtype != DType::kF32) return "exchanged in f32 only";
  return std::nullopt;
}

Tensors TensorsOf(const P& p) {
  return MeshLinearTensors(p,
                           {.x = "tokens by i, then l; inputs by j",
                            .w = "outputs by l, then i; inputs by j",
                            .b = "outputs by l, then i; the same for every j",
                            .y = "tokens by i, then j; outputs by l"},
                           [config = ConfigOf(p), side = Side(p)](int rank) {
                             return BlocksIn3d(config, side, rank);
                           });
}

// Everything is reduced over the ranks of one direction.
StatusOr<DenseOutputs> Expected(const P& p, const Arithmetic& summed,
                                const Inputs& in, const Sample& sample) {
  return MeshLinearExpected(
      p, {.y = summed, .dx = summed, .dw = summed, .db = summed}, in, sample);
}

Arithmetic Summed(const P& p, const CollectiveFamily& collectives) {
  return collectives.summed(Side(p), p.dtype);
}

Cost CostOf(const P& p, const CollectiveFamily& collectives) {
  return TensorParallel3dForwardCost(p.ranks, ConfigOf(p), collectives) +
         TensorParallel3dBackwardCost(p.ranks, ConfigOf(p), collectives);
}

// --- Planted bugs ------------------------------------------------------------

using Direction = const Communicator& (Layer::*)() const;

// Sums along `kFrom` take place along `kTo`, or nowhere.
template <Direction kFrom, Direction kTo>
Status Instead(const Layer& layer) {
  SP_ASSIGN_OR_RETURN(Misdirection* const sums,
                      MisdirectionOf((layer.*kFrom)()));
  sums->instead = (layer.*kTo)();
  return OkStatus();
}
template <Direction kFrom>
Status Nowhere(const Layer& layer) {
  SP_ASSIGN_OR_RETURN(Misdirection* const sums,
                      MisdirectionOf((layer.*kFrom)()));
  sums->keeps_own_term = true;
  return OkStatus();
}
constexpr Direction kTokens = &Layer::along_tokens, kIn = &Layer::along_in,
                    kOut = &Layer::along_out;

// The directions in and out exchanged.
int Transposed(const P& p, int rank) {
  const int q = Side(p), place = rank % (q * q);
  return rank - place + place % q * q + place / q;
}
int OtherInputs(const P& p) { return Side(p) - 1; }

bool Several(const P& p) { return p.ranks >= 2; }
// All ranks' blocks are of one size.
bool Even(const P& p) {
  const int q = Side(p);
  return Several(p) && p.tokens % (q * q) == 0 && p.in % q == 0 &&
         p.out % (q * q) == 0;
}

Mutant<P> Planted3d(std::string name, Bug bug, bool (*applies)(const P&)) {
  return MeshLinearMutant<Layer>(std::move(name), Make, std::move(bug),
                                 applies);
}
Mutant<P> Misdirected(std::string name, Status (*arrange)(const Layer&),
                      bool (*applies)(const P&)) {
  return Planted3d(std::move(name),
                   {.collectives = kMisdirected, .arrange = arrange}, applies);
}

std::vector<Mutant<P>> Mutants() {
  return {
      Misdirected("output_summed_along_tokens", Instead<kIn, kTokens>, Even),
      Misdirected("input_gradient_summed_along_in", Instead<kOut, kIn>, Even),
      Misdirected("weight_gradient_summed_along_out", Instead<kTokens, kOut>,
                  Even),
      Misdirected("output_left_partial", Nowhere<kIn>, Several),
      Misdirected("input_gradient_left_partial", Nowhere<kOut>, Several),
      Misdirected("weight_gradient_left_partial", Nowhere<kTokens>, Several),
      Planted3d("sums_averaged", {.collectives = kAveraging}, Several),
      Planted3d("not_gathered", {.collectives = kGatheringNothing}, Several),
      Planted3d("gathered_backwards", {.collectives = kGatheringBackwards},
                Several),
      Planted3d("weight_blocks_transposed", WithTheWeightOf<Layer>(Transposed),
                Even),
      Planted3d("bias_added_before_the_sum",
                WithTheBiasAgain<Layer>(OtherInputs), Several)};
}

std::vector<AxisOf<P>> Axes() {
  std::vector<AxisOf<P>> axes = MeshLinearAxes();
  axes.push_back(Axis("swapped", &P::swapped, {false, true}).Bench({false}));
  return axes;
}

std::vector<P> WorkloadOf(const Workload& workload, int ranks) {
  if (CubeSide(ranks) == 0) return {};
  return MeshLinearWorkload(workload, ranks);
}

const RegisterCase kTensorParallel3d(Case<P>{
    .name = "layers/tensor_parallel_3d",
    .what = "y = x w^T + b on a q x q x q cube, each of x, w and y on a face: "
            "gathers two, scatters the third, forward and backward",
    .axes = Axes(),
    .skip = Skip,
    .tensors = TensorsOf,
    .reference = DenseReference<P>(Expected),
    .variants = MeshLinearVariants<Layer>(Make, CostOf, Summed),
    .mutants = Mutants(),
    .flops = MeshLinearFlops,
    .floor =
        [](const P& p) { return Floor{.flops = MeshLinearFlops(p) / p.ranks}; },
    .workload = WorkloadOf});

}  // namespace
}  // namespace shardproof
