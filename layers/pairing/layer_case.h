// What the case.cc of most sharded layers say alike: a variant for every way to
// send, a planted bug for every way to send wrongly, bugs that spoil a result,
// and how a model's shapes are read.
//
// A layer's case gives two functions,
//
//     StatusOr<Operation> Bind(const P&, RankContext&, const CollectiveFamily&);
//     Cost CostOf(const P&, const CollectiveFamily&);
//
// and P has `DType dtype`, `int ranks` and `Memory memory`. Then
//
//     .variants = OverCollectives<P>(Bind, CostOf),
//     .mutants = {Planted<P>("sums_averaged", Bind, kAveraging, Several),
//                 Spoiled<P>("bias_lost", Bind, LoseBias, Biased)},
//
// For case.cc files; nothing else includes this.
#ifndef SHARDPROOF_LAYERS_PAIRING_LAYER_CASE_H_
#define SHARDPROOF_LAYERS_PAIRING_LAYER_CASE_H_

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "collectives/traffic.h"
#include "layers/pairing/broken_collectives.h"
#include "layers/tensor_parallel/collective_family.h"
#include "reference/bounded.h"
#include "reference/dtype.h"
#include "reference/linear.h"
#include "reference/tensor.h"
#include "tools/harness/case.h"

namespace shardproof {

// Collective; makes the layer over a family, and the operation.
template <class P>
using LayerBind = std::function<StatusOr<Operation>(const P&, RankContext&,
                                                    const CollectiveFamily&)>;
// What one operation sends over a family that has costs.
template <class P>
using LayerCost = std::function<Cost(const P&, const CollectiveFamily&)>;

template <class P>
Variant<P> OverCollective(const CollectiveFamily& family, unsigned needs,
                          std::string_view note, const LayerBind<P>& bind,
                          const LayerCost<P>& cost) {
  Variant<P> variant;
  variant.name = family.name;
  variant.needs = needs;
  variant.note = note;
  variant.bind = [family, bind](const P& p, RankContext& context) {
    return bind(p, context, family);
  };
  if (family.has_cost()) {
    variant.cost = [family, cost](const P& p) {
      CollectiveFamily placed = family;
      placed.memory = p.memory;
      return cost(p, placed);
    };
  }
  variant.arithmetic = [family](const P& p) {
    return family.summed(p.ranks, p.dtype);
  };
  return variant;
}

// One variant per family.
template <class P>
std::vector<Variant<P>> OverCollectives(
    const std::type_identity_t<LayerBind<P>>& bind,
    const std::type_identity_t<LayerCost<P>>& cost) {
  return {OverCollective<P>(kAutoCollectives, kAnywhere,
                            "sends by what is fastest here for the size", bind,
                            cost),
          OverCollective<P>(kDirectCollectives, kSharedMemory,
                            "sends by loads and stores in shared memory", bind,
                            cost),
          OverCollective<P>(kRingCollectives, kAnywhere,
                            "sends messages around a ring", bind, cost)};
}

// The layer over a broken family.
template <class P>
Mutant<P> Planted(std::string_view name,
                  std::type_identity_t<LayerBind<P>> bind,
                  const CollectiveFamily& broken,
                  std::function<bool(const std::type_identity_t<P>&)> applies) {
  Mutant<P> mutant;
  mutant.name = name;
  mutant.bind = [bind = std::move(bind), broken](const P& p,
                                                 RankContext& context) {
    return bind(p, context, broken);
  };
  mutant.applies = std::move(applies);
  return mutant;
}

// The layer as it should be, and then `spoil`, on every rank: it may
// communicate.
template <class P>
Mutant<P> Spoiled(
    std::string_view name, std::type_identity_t<LayerBind<P>> bind,
    std::function<Status(const std::type_identity_t<P>&, const RankContext&)>
        spoil,
    std::function<bool(const std::type_identity_t<P>&)> applies) {
  Mutant<P> mutant;
  mutant.name = name;
  mutant.bind = [bind = std::move(bind), spoil = std::move(spoil)](
                    const P& p, RankContext& context) -> StatusOr<Operation> {
    SP_ASSIGN_OR_RETURN(const Operation good,
                        bind(p, context, kAutoCollectives));
    return Operation([good, spoil, p, &context]() -> Status {
      SP_RETURN_IF_ERROR(good());
      return spoil(p, context);
    });
  };
  mutant.applies = std::move(applies);
  return mutant;
}

// For Case::probes of a chain: in types whose roundoff its bounds multiply by so
// much that they see nothing, those narrower than f32, 32 (a likely bound is then
// about 1.5 times what it would be if the deviations of all errors were known).
template <class P>
int ProbesOfChain(const P& p) {
  return SizeOf(p.dtype) < SizeOf(DType::kF32) ? 32 : 0;
}

// Every element times `factor`, in the tensor's type: a gradient of the wrong
// scale.
Status Scale(const TensorView& tensor, double factor);

// The sampled rows of an output; empty, which stands for all, where it is not
// sampled.
Rows RowsOf(const Sample& sample, std::string_view output);

// What a case reads from a workload: 0 or "" where it does not say.
int64_t ShapeOf(const Workload& workload, std::string_view name);
std::string FactOf(const Workload& workload, std::string_view name);
// An error where the workload names no type.
StatusOr<DType> TypeOf(const Workload& workload);

}  // namespace shardproof

#endif  // SHARDPROOF_LAYERS_PAIRING_LAYER_CASE_H_
