// Case<P> -> CaseInfo. Included by case.h, at its end.
#ifndef SHARDPROOF_TOOLS_HARNESS_CASE_ERASE_H_
#define SHARDPROOF_TOOLS_HARNESS_CASE_ERASE_H_

#include <any>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "tools/harness/case.h"

namespace shardproof {
namespace internal {

// Why a world of `ranks` (on `comm`, where known) lacks what is needed.
std::optional<std::string> MissingNeed(unsigned needs, int ranks,
                                       const Communicator* comm);
// The values of each axis for `purpose`, in order; kInvalidArgument for an
// override of an axis that is not there.
StatusOr<std::vector<std::vector<std::string>>> AxisValues(
    const std::vector<AxisInfo>& axes, Purpose purpose,
    const AxisOverrides& overrides);
// Advances `at` to the next point of a product of `sizes`, the last running
// fastest. False after the last.
bool NextPoint(const std::vector<size_t>& sizes, std::vector<size_t>& at);

template <class P>
using SharedCase = std::shared_ptr<const Case<P>>;

template <class P>
const P& Params(const Instance& instance) {
  return *std::any_cast<P>(&instance.params);
}

// Where the ranks and their buffers are, for those parameters that ask.
template <class P>
P Placed(const Instance& instance) {
  P p = Params<P>(instance);
  if constexpr (requires { p.memory; }) p.memory = instance.memory;
  if constexpr (requires { p.node_of; }) p.node_of = instance.node_of;
  return p;
}

template <class P>
Instance MakeInstance(const Case<P>& c, P p) {
  Instance instance{.params = {}, .values = {}, .ranks = p.ranks};
  for (const AxisOf<P>& axis : c.axes) {
    instance.values.emplace_back(axis.info.name, axis.get(p));
  }
  instance.params = std::move(p);
  return instance;
}

template <class P>
StatusOr<std::vector<Instance>> Expand(const Case<P>& c,
                                       const std::vector<AxisInfo>& axes,
                                       Purpose purpose, int ranks,
                                       const AxisOverrides& overrides) {
  std::vector<Instance> instances;
  SP_ASSIGN_OR_RETURN(const auto values, AxisValues(axes, purpose, overrides));
  std::vector<size_t> sizes;
  for (const auto& v : values) {
    if (v.empty()) return instances;
    sizes.push_back(v.size());
  }
  std::vector<size_t> at(sizes.size(), 0);
  do {
    P p{};
    p.ranks = ranks;
    for (size_t i = 0; i < at.size(); ++i) {
      SP_RETURN_IF_ERROR(
          c.axes[i]
              .set(p, values[i][at[i]])
              .WithContext(fmt::format("axis {} of {}", axes[i].name, c.name)));
    }
    if (c.skip && c.skip(p).has_value()) continue;
    instances.push_back(MakeInstance(c, std::move(p)));
  } while (NextPoint(sizes, at));
  return instances;
}

template <class P>
ErasedVariant EraseVariant(const Variant<P>& v) {
  ErasedVariant out;
  out.name = v.name;
  out.note = v.note;
  out.native = v.native;
  out.deterministic = v.deterministic;
  if (v.bind) {
    out.bind = [bind = v.bind](const Instance& i, RankContext& context) {
      return bind(Params<P>(i), context);
    };
  }
  out.refuses = [needs = v.needs, refuses = v.refuses](
                    const Instance& i,
                    const Communicator* comm) -> std::optional<std::string> {
    if (auto missing = MissingNeed(needs, i.ranks, comm)) return missing;
    if (refuses) return refuses(Params<P>(i));
    return std::nullopt;
  };
  out.cost = [cost = v.cost](const Instance& i) -> std::optional<Cost> {
    if (!cost) return std::nullopt;
    return cost(Placed<P>(i));
  };
  out.arithmetic = [arithmetic = v.arithmetic](
                       const Instance& i) -> std::optional<Arithmetic> {
    if (!arithmetic) return std::nullopt;
    return arithmetic(Placed<P>(i));
  };
  out.applies = [](const Instance&) { return true; };
  return out;
}

template <class P>
ErasedVariant EraseMutant(const Mutant<P>& m, const SharedCase<P>& c) {
  ErasedVariant out = EraseVariant(Variant<P>{
      .name = m.name, .bind = m.bind, .needs = m.needs, .cost = m.cost});
  out.mutant = true;
  out.applies = [applies = m.applies, c](const Instance& i) {
    const P& p = Params<P>(i);
    if (applies) return applies(p);
    if (i.ranks < 2) return false;
    for (const TensorSpec& t : c->tensors(p)) {
      if (t.role == TensorRole::kOutput && t.shape.NumElements() > 0) {
        return true;
      }
    }
    return false;
  };
  return out;
}

}  // namespace internal

template <class P>
CaseInfo Erase(Case<P> value) {
  using internal::Params;
  const auto c = std::make_shared<const Case<P>>(std::move(value));
  CaseInfo info;
  info.name = c->name;
  info.what = c->what;
  info.exact = c->exact;
  info.bounded = c->bounded;
  for (const AxisOf<P>& axis : c->axes) info.axes.push_back(axis.info);
  for (const Variant<P>& v : c->variants) {
    info.variants.push_back(internal::EraseVariant(v));
  }
  for (const Mutant<P>& m : c->mutants) {
    info.mutants.push_back(internal::EraseMutant(m, c));
  }
  info.expand = [c, axes = info.axes](Purpose purpose, int ranks,
                                      const AxisOverrides& overrides) {
    return internal::Expand(*c, axes, purpose, ranks, overrides);
  };
  info.workload = [c](const Workload& workload, int ranks) {
    std::vector<Instance> out;
    if (!c->workload) return out;
    for (P& p : c->workload(workload, ranks)) {
      p.ranks = ranks;
      out.push_back(internal::MakeInstance(*c, std::move(p)));
    }
    return out;
  };
  if (c->tensors) {
    info.tensors = [c](const Instance& i) { return c->tensors(Params<P>(i)); };
  }
  if (c->reference.block) {
    info.block = [c](const Instance& i, const Arithmetic& a, const Inputs& in,
                     const BlockQuery& q, std::span<Bounded> out) {
      c->reference.block(Params<P>(i), a, in, q, out);
    };
  }
  if (c->reference.dense) {
    info.dense = [c](const Instance& i, const Arithmetic& a, const Inputs& in,
                     const Sample& sample) {
      return c->reference.dense(Params<P>(i), a, in, sample);
    };
  }
  info.probes = [c](const Instance& i) {
    return c->probes ? c->probes(Params<P>(i)) : 0;
  };
  info.bytes = [c](const Instance& i) {
    return c->bytes ? c->bytes(Params<P>(i)) : int64_t{0};
  };
  info.busbw_factor = [c](const Instance& i) {
    return c->busbw_factor ? c->busbw_factor(Params<P>(i)) : 1.0;
  };
  info.flops = [c](const Instance& i) {
    return c->flops ? c->flops(Params<P>(i)) : 0.0;
  };
  info.floor = [c](const Instance& i) {
    return c->floor ? c->floor(Params<P>(i)) : Floor{};
  };
  return info;
}

}  // namespace shardproof

#endif  // SHARDPROOF_TOOLS_HARNESS_CASE_ERASE_H_
