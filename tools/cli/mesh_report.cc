#include "tools/cli/mesh_report.h"

#include <fmt/format.h>

#include <algorithm>
#include <any>
#include <set>
#include <utility>

#include "pipeline/train_step/case_setup.h"
#include "pipeline/train_step/mesh_cost.h"
#include "tools/cli/table.h"

namespace shardproof {
namespace {

std::string_view Name(Recomputation recompute) {
  switch (recompute) {
    case Recomputation::kNone:
      return "no";
    case Recomputation::kSelective:
      return "selective";
    case Recomputation::kFull:
      return "full";
  }
  return "?";
}

std::string Describe(const TrainStepConfig& config) {
  const LanguageModelConfig& m = config.model;
  std::string text = fmt::format(
      "{} blocks of {}, {} heads, {} KV heads of {}, {}width {}, vocabulary "
      "{}, {}\n{} sequences of {} in {} micro-batches, {} in {} chunk{} of a "
      "rank, ZeRO {}, {} recomputation",
      m.blocks, m.hidden, m.heads, m.kv_heads, m.head_dim,
      m.experts > 0
          ? fmt::format("{} experts ({} of a token) of ", m.experts, m.top_k)
          : "",
      m.intermediate, m.vocabulary, Name(m.dtype), config.sequences, m.length,
      config.micro_batches, config.schedule, config.chunks,
      config.chunks == 1 ? "" : "s", config.zero_stage, Name(config.recompute));
  if (config.mesh.cp() > 1) {
    text += fmt::format(", attention by {} ({})", Name(config.scheme),
                        Name(config.layout));
  }
  if (config.sequence_parallel) text += ", sequence-parallel";
  return text;
}

TrainMesh InUsualOrder(const TrainMesh& mesh) {
  TrainMesh usual;
  for (MeshDimension& d : usual.dimensions) d.size = mesh.Size(d.name);
  return usual;
}

std::string TableOf(const MeshCost& cost, int ranks_per_node) {
  Table table({"along", "ranks", "stride", "sent", "transfers",
               fmt::format("between nodes of {}", ranks_per_node)});
  const auto add = [&](const std::string& name, const std::string& size,
                       const std::string& stride, const Traffic& sent,
                       double between) {
    const auto bytes = static_cast<double>(sent.bytes);
    const double share = sent.bytes > 0 ? 100 * between / bytes : 0;
    table.Add({name, size, stride, BytesText(bytes),
               fmt::format("{}", sent.messages),
               fmt::format("{} {:5.1f} %", BytesText(between), share)});
  };
  for (const DimensionCost& row : cost.dimensions) {
    add(row.name, fmt::format("{}", row.size), fmt::format("{}", row.stride),
        {row.bytes, row.messages}, BytesBetweenNodes(row, ranks_per_node));
  }
  add("total", "", "", cost.total, BytesBetweenNodes(cost, ranks_per_node));
  return table.Text();
}

StatusOr<std::string> Compare(const TrainStepConfig& config,
                              const MeshCost& cost, int ranks_per_node) {
  const std::string mesh = Describe(config.mesh);
  const double mine = BytesBetweenNodes(cost, ranks_per_node);
  const std::string sends = fmt::format("{} sends {} between nodes of {} ranks",
                                        mesh, BytesText(mine), ranks_per_node);
  if (config.mesh.InUsualOrder()) {
    return sends + ", in the usual order: tp, cp, ep, pp, dp";
  }
  TrainStepConfig usual = config;
  usual.mesh = InUsualOrder(config.mesh);
  SP_ASSIGN_OR_RETURN(const MeshCost other, PredictMeshCost(usual));
  const double theirs = BytesBetweenNodes(other, ranks_per_node);
  return fmt::format("{}; {}, in the usual order, sends {}{}", sends,
                     Describe(usual.mesh), BytesText(theirs),
                     mine > 0 && theirs > 0
                         ? fmt::format(" ({:.3g} % of it)", 100 * theirs / mine)
                         : "");
}

}  // namespace

int NodeOf(int ranks) { return std::clamp(ranks / 2, 1, 8); }

StatusOr<std::string> OrderSentence(const TrainStepConfig& config,
                                    int ranks_per_node) {
  SP_ASSIGN_OR_RETURN(const MeshCost cost, PredictMeshCost(config));
  return Compare(config, cost, ranks_per_node);
}

StatusOr<std::string> MeshReport(const TrainStepConfig& config,
                                 int ranks_per_node) {
  SP_ASSIGN_OR_RETURN(const MeshCost cost, PredictMeshCost(config));
  SP_ASSIGN_OR_RETURN(const std::string compared,
                      Compare(config, cost, ranks_per_node));
  std::string text = fmt::format("{}\n\n{}\n{}.\n\n", Describe(config),
                                 TableOf(cost, ranks_per_node), compared);
  text +=
      "Predicted, of one step and over all ranks; what goes along several\n"
      "dimensions at once, as gradients do, is a line of its own. Collectives "
      "count as\nrings, which send as much over every edge; a library may "
      "choose another way.\n";
  if (!cost.exact) {
    text +=
        "Along ep as if tokens chose all experts equally often: how much is "
        "sent there\ndepends on the routing.\n";
  }
  return text;
}

std::optional<TrainStepConfig> TrainStepOf(const Instance& instance) {
  const auto* const p = std::any_cast<train_step::P>(&instance.params);
  if (p == nullptr) return std::nullopt;
  return train_step::ConfigOf(*p);
}

std::string WhyNotOnMesh(const CaseInfo& info, const std::string& mesh) {
  const auto named = [](const char* name) {
    return [name](const AxisInfo& axis) { return axis.name == name; };
  };
  const auto end = info.axes.end();
  const auto models = std::find_if(info.axes.begin(), end, named("model"));
  if (models == end || std::none_of(info.axes.begin(), end, named("mesh"))) {
    return "";
  }
  std::string why;
  for (const std::string& model : models->verify) {
    train_step::P p;
    p.matrix = train_step::Matrix::kAll;
    if (!ParseAxisValue(model, &p.model).ok() ||
        !ParseAxisValue(mesh, &p.mesh).ok()) {
      return "";
    }
    p.ranks = p.mesh.ranks();
    const std::optional<std::string> reason = train_step::Skip(p);
    if (!reason) return "";
    why += fmt::format("{}{}: {}", why.empty() ? "" : "; ", model, *reason);
  }
  return why;
}

void PrintNotesOnOrder(const std::vector<Job>& jobs) {
  std::set<std::string> seen;
  for (const Job& job : jobs) {
    const auto* const p = std::any_cast<train_step::P>(&job.instance.params);
    if (p == nullptr || p->mesh.InUsualOrder()) continue;
    const std::string mesh = Describe(p->mesh);
    if (!seen.insert(mesh).second) continue;
    const auto sentence =
        OrderSentence(train_step::ConfigOf(*p), NodeOf(p->mesh.ranks()));
    if (!sentence.ok()) continue;
    const std::string model = FormatAxisValue(p->model);
    fmt::print(stderr,
               "note: a step of {} on {}; `shardproof pipeline mesh --mesh {} "
               "--model {}` says along which dimension\n",
               model, *sentence, mesh, model);
  }
}

}  // namespace shardproof
