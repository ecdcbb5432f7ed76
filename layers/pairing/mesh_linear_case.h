// What the case.cc of linear layers on a mesh of ranks say alike: parameters,
// tensors, reference, and a way to plant bugs between the layer's own groups.
//
// A case gives the blocks of a rank, makes its layer, and says how its sums are
// rounded:
//
//     using P = MeshLinearPoint;
//     const MeshLinearCase<Layer> kCase = {.make = Make, .blocks = BlocksOf,
//                                          .arithmetic = ArithmeticOf, ...};
//     .axes = MeshLinearAxes(), .tensors = kCase.tensors(), ...
//
// For case.cc files; nothing else includes this.
#ifndef SHARDPROOF_LAYERS_PAIRING_MESH_LINEAR_CASE_H_
#define SHARDPROOF_LAYERS_PAIRING_MESH_LINEAR_CASE_H_

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "layers/pairing/layer_case.h"
#include "layers/tensor_parallel/collective_family.h"
#include "layers/tensor_parallel/mesh_linear.h"
#include "tools/harness/case.h"

namespace shardproof {

struct MeshLinearPoint {
  DType dtype = DType::kF32;
  bool bias = true;
  int64_t tokens = 0;
  int64_t in = 0;
  int64_t out = 0;
  int depth = 1;         // tensor_parallel_2_5d
  bool swapped = false;  // tensor_parallel_3d
  int ranks = 1;
  Memory memory = Memory::kShared;
};

MeshLinearConfig MeshLinearConfigOf(const MeshLinearPoint& p);
// dtype, bias, tokens, in, out. The first sizes are divisible by 4, the others
// leave ranks of a mesh of side 2 unequal parts, or none.
std::vector<AxisOf<MeshLinearPoint>> MeshLinearAxes();
double MeshLinearFlops(const MeshLinearPoint& p);
// A model's projection of the attention output, without anything of the mesh;
// none where the workload has no such layer.
std::vector<MeshLinearPoint> MeshLinearWorkload(const Workload& workload,
                                                int ranks);

// How the sum of each result is rounded.
struct MeshLinearArithmetic {
  Arithmetic y, dx, dw, db;
};
StatusOr<DenseOutputs> MeshLinearExpected(const MeshLinearPoint& p,
                                          const MeshLinearArithmetic& a,
                                          const Inputs& in,
                                          const Sample& sample);

// What x, w, b and y are cut by, for people.
struct MeshLinearNames {
  std::string x, w, b, y;
};
using BlocksOfRank = std::function<MeshLinearBlocks(int rank)>;
Tensors MeshLinearTensors(const MeshLinearPoint& p,
                          const MeshLinearNames& names,
                          const BlocksOfRank& blocks);

// --- Planted bugs ------------------------------------------------------------

// What becomes of a sum over the ranks of one group: it is taken over another
// group of as many ranks, or each rank keeps its own term.
struct Misdirection {
  Communicator instead = {};
  // Only sums of this many elements; 0: all. Sums that some ranks of the other
  // group have no part in must not go there.
  int64_t count = 0;
  bool keeps_own_term = false;
};
// That of `group` for kMisdirected; none until it is set.
StatusOr<Misdirection*> MisdirectionOf(const Communicator& group);
extern const CollectiveFamily kMisdirected;

// No broadcast from the last rank of a group: what the one before sent is used
// again.
extern const CollectiveFamily kMissingTheLastBroadcast;

// The tensors of one call of either pass, of which a bug may change some.
struct MeshLinearCall {
  MeshLinearForwardArgs forward;
  MeshLinearBackwardArgs backward;
};
MeshLinearCall MeshLinearCallOf(const MeshLinearPoint& p, const RankContext& c);

// Sends `own` elements of `mine` to rank `partner` and takes its.
StatusOr<std::vector<std::byte>> Exchanged(const Communicator& comm,
                                           const ConstTensorView& mine,
                                           int partner);
// y += times * b, where y is `bias` of a layer without any input.
Status AddTo(const TensorView& y, const std::vector<std::byte>& bias,
             double times);

template <class Layer>
struct MeshLinearBug {
  CollectiveFamily collectives = kAutoCollectives;
  // Once, to the layer as it was made.
  std::function<Status(const Layer&)> arrange = {};
  // After both passes.
  std::function<Status(const MeshLinearPoint&, const Layer&,
                       const RankContext&)>
      spoil = {};
};

template <class Layer>
Status RunMeshLinear(const Layer& layer, const MeshLinearCall& call,
                     const Stream& stream) {
  SP_RETURN_IF_ERROR(layer.Forward(call.forward, stream));
  return layer.Backward(call.backward, stream);
}

// The layer with the weight of rank `partner`(rank), which has blocks of the
// same sizes.
template <class Layer>
MeshLinearBug<Layer> WithTheWeightOf(
    std::function<int(const MeshLinearPoint&, int rank)> partner) {
  return {.spoil = [partner = std::move(partner)](
                       const MeshLinearPoint& p, const Layer& layer,
                       const RankContext& c) -> Status {
    SP_ASSIGN_OR_RETURN(
        const std::vector<std::byte> w,
        Exchanged(c.comm(), c.in("w"), partner(p, c.comm().rank())));
    MeshLinearCall call = MeshLinearCallOf(p, c);
    call.forward.w = call.backward.w = w.data();
    return RunMeshLinear(layer, call, c.stream());
  }};
}

// The layer, and then the bias `times`(p) times more.
template <class Layer>
MeshLinearBug<Layer> WithTheBiasAgain(
    std::function<int(const MeshLinearPoint&)> times) {
  return {.spoil = [times = std::move(times)](const MeshLinearPoint& p,
                                              const Layer& layer,
                                              const RankContext& c) -> Status {
    const auto bytes = [&](int64_t count) {
      return static_cast<size_t>(count * SizeOf(p.dtype));
    };
    const std::vector<std::byte> x(bytes(c.in("x").num_elements()));
    std::vector<std::byte> y(bytes(c.out("y").num_elements()));
    MeshLinearCall call = MeshLinearCallOf(p, c);
    call.forward.x = x.data();
    call.forward.y = y.data();
    SP_RETURN_IF_ERROR(layer.Forward(call.forward, c.stream()));
    return AddTo(c.out("y"), y, times(p));
  }};
}

template <class Layer>
using MeshLinearMake = StatusOr<Layer> (*)(const MeshLinearPoint&,
                                           const Communicator&,
                                           const CollectiveFamily&);

template <class Layer>
StatusOr<Operation> BindMeshLinear(MeshLinearMake<Layer> make,
                                   const MeshLinearPoint& p,
                                   RankContext& context,
                                   const MeshLinearBug<Layer>& bug) {
  SP_ASSIGN_OR_RETURN(Layer made, make(p, context.comm(), bug.collectives));
  const auto layer = std::make_shared<Layer>(std::move(made));
  if (bug.arrange) SP_RETURN_IF_ERROR(bug.arrange(*layer));
  return Operation([layer, p, spoil = bug.spoil, &context]() -> Status {
    SP_RETURN_IF_ERROR(
        RunMeshLinear(*layer, MeshLinearCallOf(p, context), context.stream()));
    return spoil ? spoil(p, *layer, context) : OkStatus();
  });
}

template <class Layer>
Mutant<MeshLinearPoint> MeshLinearMutant(
    std::string name, MeshLinearMake<Layer> make, MeshLinearBug<Layer> bug,
    std::function<bool(const MeshLinearPoint&)> applies) {
  Mutant<MeshLinearPoint> mutant;
  mutant.name = std::move(name);
  mutant.bind = [make, bug = std::move(bug)](const MeshLinearPoint& p,
                                             RankContext& context) {
    return BindMeshLinear<Layer>(make, p, context, bug);
  };
  mutant.applies = std::move(applies);
  return mutant;
}

// One variant per family; `arithmetic` is of the sums that are reduced.
template <class Layer>
std::vector<Variant<MeshLinearPoint>> MeshLinearVariants(
    MeshLinearMake<Layer> make,
    Cost (*cost)(const MeshLinearPoint&, const CollectiveFamily&),
    Arithmetic (*arithmetic)(const MeshLinearPoint&, const CollectiveFamily&)) {
  auto variants = OverCollectives<MeshLinearPoint>(
      [make](const MeshLinearPoint& p, RankContext& context,
             const CollectiveFamily& collectives) {
        return BindMeshLinear<Layer>(make, p, context,
                                     {.collectives = collectives});
      },
      cost);
  // In the order of OverCollectives.
  const CollectiveFamily families[] = {kAutoCollectives, kDirectCollectives,
                                       kRingCollectives};
  for (size_t i = 0; i < variants.size(); ++i) {
    variants[i].arithmetic = [arithmetic,
                              family = families[i]](const MeshLinearPoint& p) {
      return arithmetic(p, family);
    };
  }
  return variants;
}

}  // namespace shardproof

#endif  // SHARDPROOF_LAYERS_PAIRING_MESH_LINEAR_CASE_H_
