// shardproof list: what there is to verify and to measure.
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <nlohmann/json.hpp>

#include "tools/cli/commands.h"
#include "tools/cli/jobs.h"

namespace shardproof {
namespace {

nlohmann::ordered_json CaseJson(const CaseInfo& info) {
  nlohmann::ordered_json out = {{"case", info.name}, {"what", info.what}};
  out["axes"] = nlohmann::ordered_json::array();
  for (const AxisInfo& axis : info.axes) {
    out["axes"].push_back(
        {{"name", axis.name}, {"verify", axis.verify}, {"bench", axis.bench}});
  }
  const auto names = [](const std::vector<ErasedVariant>& variants) {
    auto list = nlohmann::ordered_json::array();
    for (const ErasedVariant& v : variants) {
      list.push_back(
          {{"name", v.name}, {"native", v.native}, {"note", v.note}});
    }
    return list;
  };
  out["variants"] = names(info.variants);
  out["mutants"] = names(info.mutants);
  return out;
}

void Print(const CaseInfo& info) {
  fmt::print("{}\n  {}\n", info.name, info.what);
  for (const AxisInfo& axis : info.axes) {
    fmt::print("  axis {:<18} {}\n", axis.name, fmt::join(axis.verify, ","));
    if (axis.bench != axis.verify) {
      fmt::print("  {:<23} {} (bench)\n", "", fmt::join(axis.bench, ","));
    }
  }
  for (const ErasedVariant& v : info.variants) {
    fmt::print("  variant {:<20} {}\n", v.name,
               v.note.empty() && v.native ? "the library under test" : v.note);
  }
  for (const ErasedVariant& m : info.mutants) {
    fmt::print("  mutant {}\n", m.name);
  }
  fmt::print("\n");
}

}  // namespace

ExitCode RunList(const Options& options, bool as_json) {
  const auto cases = ChooseCases(options);
  if (!cases.ok()) return Refuse(cases.status());
  if (as_json) {
    auto all = nlohmann::ordered_json::array();
    for (const CaseInfo* info : *cases) all.push_back(CaseJson(*info));
    fmt::print("{}\n", all.dump(2));
    return kExitPass;
  }
  size_t variants = 0;
  for (const CaseInfo* info : *cases) {
    Print(*info);
    variants += info->variants.size();
  }
  fmt::print("{} cases, {} variants\n", cases->size(), variants);
  return kExitPass;
}

}  // namespace shardproof
