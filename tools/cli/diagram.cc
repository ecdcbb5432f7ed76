#include "tools/cli/diagram.h"

#include <fmt/format.h>

#include <chrono>
#include <optional>
#include <utility>

#include "tools/harness/trace.h"

namespace shardproof {
namespace {

ShardDiagram::Tensor TensorOf(const TensorSpec& spec, int ranks) {
  ShardDiagram::Tensor tensor;
  tensor.name = spec.name;
  tensor.dtype = Name(spec.dtype);
  tensor.sharding = spec.sharding.name;
  tensor.input = spec.role == TensorRole::kInput;
  tensor.shape.assign(spec.shape.begin(), spec.shape.end());
  for (int r = 0; r < ranks; ++r) {
    auto& dimensions = tensor.blocks.emplace_back();
    for (const auto& ranges : spec.BlockOf(r, ranks).ranges) {
      auto& block = dimensions.emplace_back();
      for (const Interval& i : ranges) block.emplace_back(i.begin, i.end);
    }
  }
  return tensor;
}

std::string ParamsOf(const Instance& instance) {
  std::string text;
  for (const auto& [axis, value] : instance.values) {
    text += fmt::format("{}{}={}", text.empty() ? "" : " ", axis, value);
  }
  return text;
}

// What is drawn of a case, or why nothing is.
StatusOr<ShardDiagram> SmallestDiagram(World& world, const CaseInfo& info,
                                       const DiagramOptions& options) {
  SP_ASSIGN_OR_RETURN(const std::vector<Instance> instances,
                      info.expand(Purpose::kSmoke, options.ranks, {}));
  Status why = Unsupported("no variant runs at {} ranks and says what it costs",
                           options.ranks);
  for (const Instance& instance : instances) {
    for (const ErasedVariant& variant : info.variants) {
      if (variant.native || !variant.cost(instance).has_value() ||
          variant.refuses(instance, nullptr).has_value()) {
        continue;
      }
      auto diagram = DiagramOf(world, info, variant, instance, options.seed);
      if (diagram.ok() || diagram.status().code() != StatusCode::kUnsupported) {
        return diagram;
      }
      why = diagram.status();
    }
  }
  return why;
}

}  // namespace

StatusOr<ShardDiagram> DiagramOf(World& world, const CaseInfo& info,
                                 const ErasedVariant& variant,
                                 const Instance& instance, uint64_t seed) {
  SP_ASSIGN_OR_RETURN(const Trace trace,
                      TraceSteps(world, info, variant, instance, seed));
  ShardDiagram diagram;
  diagram.case_name = info.name;
  diagram.variant = variant.name;
  diagram.what = info.what;
  diagram.ranks = instance.ranks;
  diagram.params = ParamsOf(instance);
  for (const TensorSpec& spec : info.tensors(instance)) {
    diagram.tensors.push_back(TensorOf(spec, instance.ranks));
  }
  if (variant.native) {
    diagram.note = "What moves is the library's own: it is not seen from here.";
    return diagram;
  }
  if (trace.in_groups) {
    diagram.note =
        "Some of what moves is within groups of ranks: its numbers are those "
        "in a group.";
  }
  for (const TraceStep& step : trace.steps) {
    ShardDiagram::Step& drawn = diagram.steps.emplace_back();
    drawn.number = step.number;
    drawn.operation = step.operation;
    drawn.kind = Name(step.kind);
    for (const TraceTransfer& t : step.transfers) {
      drawn.transfers.push_back({t.from, t.to, t.bytes, t.messages});
    }
  }
  return diagram;
}

std::vector<const CaseInfo*> LayerCases() {
  std::vector<const CaseInfo*> cases;
  for (const CaseInfo& info : Registry::Get().cases()) {
    if (info.name.starts_with("layers/") ||
        info.name.starts_with("attention/")) {
      cases.push_back(&info);
    }
  }
  return cases;
}

Diagrams DiagramsOf(World& world, const std::vector<const CaseInfo*>& cases,
                    const DiagramOptions& options) {
  using Clock = std::chrono::steady_clock;
  const auto end =
      Clock::now() + std::chrono::duration<double>(options.seconds);
  Diagrams all;
  for (const CaseInfo* info : cases) {
    if (Clock::now() >= end) {
      all.left_out.push_back(
          fmt::format("{}: no picture, the time of {} s was spent", info->name,
                      options.seconds));
      continue;
    }
    auto diagram = SmallestDiagram(world, *info, options);
    if (diagram.ok()) {
      all.diagrams.push_back(*std::move(diagram));
    } else {
      all.left_out.push_back(fmt::format("{}: no picture, {}", info->name,
                                         diagram.status().message()));
    }
  }
  return all;
}

}  // namespace shardproof
