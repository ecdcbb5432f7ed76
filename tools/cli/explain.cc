// shardproof explain: what each rank holds, what is sent, what it costs.
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <map>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "tools/cli/commands.h"
#include "tools/cli/jobs.h"
#include "tools/cli/mesh_report.h"
#include "tools/cli/table.h"
#include "tools/harness/trace.h"

namespace shardproof {
namespace {

std::string Whole(int64_t bytes) {
  return bytes < 1024 ? fmt::format("{} B", bytes)
                      : BytesText(static_cast<double>(bytes));
}

std::string RangesText(const LocalBlock& block) {
  std::vector<std::string> dimensions;
  for (const auto& ranges : block.ranges) {
    std::vector<std::string> parts;
    for (const Interval& i : ranges) {
      parts.push_back(fmt::format("{}..{}", i.begin, i.end));
    }
    dimensions.push_back(
        parts.empty() ? "nothing" : fmt::format("{}", fmt::join(parts, "+")));
  }
  return fmt::format("[{}]", fmt::join(dimensions, ", "));
}

// What one rank holds, as text; equal texts are printed once.
std::string BlockText(const TensorSpec& spec, const LocalBlock& block) {
  if (block.shape.NumElements() == 0) return "nothing";
  const std::string bytes =
      Whole(block.shape.NumElements() * SizeOf(spec.dtype));
  std::string text = fmt::format("{}, {}", block.shape.ToString(), bytes);
  if (spec.sharding.kind == ShardKind::kSharded) {
    text += fmt::format(": elements {}", RangesText(block));
  }
  return text;
}

void PrintTensor(const TensorSpec& spec, int ranks) {
  fmt::print("  {} {} {}{}, {}\n",
             spec.role == TensorRole::kInput ? "input " : "output", spec.name,
             Name(spec.dtype), spec.shape.ToString(), spec.sharding.name);
  if (!spec.alias.empty()) {
    fmt::print("         in the memory of {}\n", spec.alias);
  }
  std::vector<std::pair<std::string, std::vector<int>>> groups;
  for (int r = 0; r < ranks; ++r) {
    const std::string text = BlockText(spec, spec.BlockOf(r, ranks));
    const auto found =
        std::find_if(groups.begin(), groups.end(),
                     [&](const auto& g) { return g.first == text; });
    if (found == groups.end()) {
      groups.push_back({text, {r}});
    } else {
      found->second.push_back(r);
    }
  }
  for (const auto& [text, who] : groups) {
    if (static_cast<int>(who.size()) == ranks) {
      fmt::print("         every rank: {}\n", text);
    } else {
      fmt::print("         rank{} {}: {}\n", who.size() == 1 ? "" : "s",
                 fmt::join(who, ", "), text);
    }
  }
}

// Transfers of equal size are put together: "every rank to rank + 1".
std::vector<std::string> TransferTexts(const TraceStep& step, int ranks,
                                       bool in_groups) {
  std::map<std::pair<int64_t, int64_t>,
           std::map<int, std::vector<TraceTransfer>>>
      by_size;
  for (const TraceTransfer& t : step.transfers) {
    const int distance = ((t.to - t.from) % ranks + ranks) % ranks;
    by_size[{t.bytes, t.messages}][distance].push_back(t);
  }
  std::vector<std::string> lines;
  for (const auto& [size, distances] : by_size) {
    std::vector<std::string> who;
    size_t all = 0;
    for (const auto& [distance, transfers] : distances) all += transfers.size();
    const auto n = static_cast<size_t>(ranks);
    if (!in_groups && n > 2 && all == n * (n - 1)) {
      who.emplace_back("every rank to every other");
    } else {
      for (const auto& [distance, transfers] : distances) {
        if (!in_groups && n > 2 && transfers.size() == n) {
          who.push_back(fmt::format("every rank to rank + {}", distance));
          continue;
        }
        for (const TraceTransfer& t : transfers) {
          who.push_back(fmt::format("{} -> {}", t.from, t.to));
        }
      }
    }
    std::string each = Whole(size.first);
    if (size.second > 1) each += fmt::format(" in {} parts", size.second);
    lines.push_back(fmt::format("{}: {}{}", fmt::join(who, ", "), each,
                                all > 1 ? " each" : ""));
  }
  return lines;
}

void PrintTrace(const Trace& trace, int ranks) {
  if (trace.steps.empty()) {
    fmt::print("  nothing crosses between ranks\n");
    return;
  }
  int number = 0;
  for (const TraceStep& step : trace.steps) {
    int64_t bytes = 0;
    for (const TraceTransfer& t : step.transfers) bytes += t.bytes;
    fmt::print("  {:<7} {} by {}s, {} in all\n",
               step.number == number ? "" : fmt::format("step {}", step.number),
               step.operation, Name(step.kind), Whole(bytes));
    number = step.number;
    for (const std::string& line :
         TransferTexts(step, ranks, trace.in_groups)) {
      fmt::print("          {}\n", line);
    }
  }
  if (trace.in_groups) {
    fmt::print(
        "  Some of this is within groups of ranks: numbers are those in "
        "a group.\n");
  }
}

void PrintTotals(const Trace& trace, const std::optional<Cost>& cost) {
  fmt::print("  counted   {} in {} transfers, over all ranks\n",
             Whole(trace.total.bytes), trace.total.messages);
  if (!cost.has_value()) {
    fmt::print("  declared  nothing: it chooses among the others\n");
    return;
  }
  fmt::print("  declared  {} in {} transfers{}\n", Whole(cost->total.bytes),
             cost->total.messages,
             cost->total == trace.total ? ": the same" : ": NOT THE SAME");
  fmt::print(
      "  time      {:g} alpha + {:.0f} B beta + {:.0f} B gamma, along the "
      "longest path\n",
      cost->alpha_count, cost->beta_bytes, cost->gamma_bytes);
}

void PrintVariants(const CaseInfo& info, const Instance& instance) {
  Table table(
      {"variant", "alpha", "beta", "gamma", "bytes", "transfers", "what"});
  for (const ErasedVariant& v : info.variants) {
    const std::optional<Cost> cost = v.cost(instance);
    const auto why = v.refuses(instance, nullptr);
    std::vector<std::string> row = {v.name, "-", "-", "-", "-", "-"};
    if (cost.has_value() && !why.has_value()) {
      row = {v.name,
             fmt::format("{:g}", cost->alpha_count),
             fmt::format("{:.0f}", cost->beta_bytes),
             fmt::format("{:.0f}", cost->gamma_bytes),
             fmt::format("{}", cost->total.bytes),
             fmt::format("{}", cost->total.messages)};
    }
    row.push_back(why.has_value() ? "not here: " + *why : v.note);
    table.Add(std::move(row));
  }
  fmt::print("{}", table.Text());
  fmt::print(
      "  alpha: messages one after another; beta: bytes through one rank's "
      "link;\n  gamma: bytes that one rank reduces; all along the longest "
      "path. "
      "bytes and\n  transfers: over all ranks.\n");
}

void PrintFloor(const CaseInfo& info, const Instance& instance) {
  const Floor floor = info.floor(instance);
  const int64_t bytes = info.bytes(instance);
  const double flops = info.flops(instance);
  if (bytes > 0) {
    fmt::print("  algbw counts {}; busbw is algbw times {:.4g}\n", Whole(bytes),
               info.busbw_factor(instance));
  }
  std::vector<std::string> parts;
  if (floor.copy_bytes > 0) {
    parts.push_back(
        fmt::format("{:.0f} B read and written by one rank", floor.copy_bytes));
  }
  if (floor.wire_bytes > 0) {
    parts.push_back(fmt::format("{:.0f} B through one link", floor.wire_bytes));
  }
  if (floor.flops > 0) {
    parts.push_back(fmt::format("{:.4g} flop by one rank", floor.flops));
  }
  if (!parts.empty()) {
    fmt::print("  no implementation does with less than {}\n",
               fmt::join(parts, ", "));
  }
  if (flops > 0) fmt::print("  {:.4g} flop over all ranks\n", flops);
}

// By whole name, or by its last part where that says which.
StatusOr<const CaseInfo*> FindCase(const std::string& name) {
  if (const CaseInfo* info = Registry::Get().Find(name)) return info;
  std::vector<std::string> names;
  std::vector<const CaseInfo*> found;
  for (const CaseInfo& info : Registry::Get().cases()) {
    names.push_back(info.name);
    if (info.name.substr(info.name.rfind('/') + 1) == name) {
      found.push_back(&info);
    }
  }
  if (found.size() == 1) return found.front();
  return InvalidArgument(
      "there is no case \"{}\": did you mean {}? `shardproof list` shows all",
      name, Near(name, names));
}

std::string InstanceText(const Instance& instance) {
  std::string text =
      fmt::format("{} rank{}", instance.ranks, instance.ranks == 1 ? "" : "s");
  for (const auto& [axis, value] : instance.values) {
    text += fmt::format(" {}={}", axis, value);
  }
  return text;
}

// Without --variant: the first that says what it costs.
std::vector<const ErasedVariant*> VariantsToTrace(const CaseInfo& info,
                                                  const Instance& instance,
                                                  const std::vector<Job>& jobs,
                                                  bool asked_for) {
  std::vector<const ErasedVariant*> chosen;
  for (const Job& job : jobs) {
    if (chosen.empty() || chosen.back() != job.variant) {
      chosen.push_back(job.variant);
    }
  }
  if (asked_for) return chosen;
  for (const ErasedVariant& v : info.variants) {
    if (v.cost(instance).has_value() && !v.refuses(instance, nullptr)) {
      return {&v};
    }
  }
  chosen.resize(std::min<size_t>(chosen.size(), 1));
  return chosen;
}

// Of a training step on several ranks; nothing else has a mesh.
void PrintMesh(const Instance& instance) {
  const std::optional<TrainStepConfig> step = TrainStepOf(instance);
  if (!step.has_value() || step->mesh.ranks() == 1) return;
  const auto report = MeshReport(*step, NodeOf(step->mesh.ranks()));
  fmt::print(
      "\nAlong the mesh (`shardproof pipeline mesh` shows any other)\n{}",
      report.ok() ? *report : report.status().message());
}

ExitCode Explain(const CaseInfo& info, const std::vector<Job>& jobs,
                 const Options& options, World& world) {
  const Instance& instance = jobs.front().instance;
  fmt::print("{}: {}\nat {}\n\nWhat each rank holds\n", info.name, info.what,
             InstanceText(instance));
  for (const TensorSpec& spec : info.tensors(instance)) {
    PrintTensor(spec, instance.ranks);
  }
  PrintFloor(info, instance);
  fmt::print("\nVariants\n");
  PrintVariants(info, instance);
  PrintMesh(instance);
  ExitCode code = kExitPass;
  const auto variants =
      VariantsToTrace(info, instance, jobs, !options.variant.empty());
  for (const ErasedVariant* variant : variants) {
    fmt::print("\n{}, as it ran{}{}\n", variant->name,
               variant->note.empty() ? "" : ": ", variant->note);
    const auto trace =
        TraceSteps(world, info, *variant, instance, options.seed);
    if (!trace.ok()) {
      fmt::print("  not here: {}\n", trace.status().message());
      continue;
    }
    if (variant->native) {
      fmt::print("  the library's own: it is not seen from here\n");
      continue;
    }
    PrintTrace(*trace, instance.ranks);
    const auto cost = variant->cost(instance);
    PrintTotals(*trace, cost);
    if (cost.has_value() && cost->total != trace->total) code = kExitMismatch;
  }
  if (options.variant.empty() && info.variants.size() > 1) {
    fmt::print("\nThe steps of another variant: --variant NAME\n");
  }
  return code;
}

}  // namespace

ExitCode RunExplain(const Options& options, const std::string& case_name) {
  const auto info = FindCase(case_name);
  if (!info.ok()) return Refuse(info.status());
  if (!options.backend.empty() && options.backend != "thread") {
    return Refuse(Unsupported(
        "explain runs on the thread backend: steps are the same on {}",
        options.backend));
  }
  Options chosen = options;
  chosen.filter = fmt::format("^{}$", (*info)->name);
  const auto ranks = RanksOf(options, {4});
  if (!ranks.ok()) return Refuse(ranks.status());
  auto world = CreateWorld("thread");
  if (!world.ok()) return Refuse(world.status());
  ExitCode code = kExitPass;
  for (const int n : *ranks) {
    const auto jobs = ChooseJobs(chosen, Purpose::kSmoke, {n});
    if (!jobs.ok()) return Refuse(jobs.status());
    code = Worse(code, Explain(**info, *jobs, options, **world));
  }
  return code;
}

}  // namespace shardproof
