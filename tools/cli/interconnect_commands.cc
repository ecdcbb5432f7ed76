#include "tools/cli/interconnect_commands.h"

#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <memory>
#include <utility>

namespace shardproof {

void AddInterconnectCommands(CLI::App& app, Options& options,
                             const std::function<void(ExitCode)>& done) {
  const auto add = [&](const char* name, const char* what) {
    CLI::App* command = app.add_subcommand(name, what);
    AddSelectionFlags(*command, options);
    AddRunFlags(*command, options);
    AddNcclTestsFlags(*command, options);
    return command;
  };
  CLI::App* p2p = add("p2p",
                      "Latency and bandwidth between all pairs of ranks, one "
                      "pair at a time; which links are slow or lopsided");
  p2p->callback([&options, done] { done(RunP2p(options)); });

  CLI::App* fit = add("fit",
                      "Time over size of every chosen collective: alpha and "
                      "beta with intervals, predicted against measured, "
                      "crossovers");
  // Read when the callback runs.
  auto tuning = std::make_shared<std::string>();
  fit->add_option("--tuning", *tuning,
                  "Write what `auto` should choose to this file, for the "
                  "variable SHARDPROOF_TUNING");
  fit->callback([&options, done, tuning] { done(RunFit(options, *tuning)); });

  CLI::App* scale = add("scale",
                        "Strong and weak scaling over --ranks, pairs that "
                        "exchange at once, and where the bottleneck is");
  scale->callback([&options, done] { done(RunScale(options)); });
}

// Adds it to the names of backends, and a finding where there is any.
static void SayWhatIsEmulated(const Session& session, Interconnect& found) {
  bool any = false;
  const auto mark = [&](auto& measured) {
    for (auto& one : measured) {
      if (!session.Emulated(one.ranks)) continue;
      one.backend += ", emulated";
      any = true;
    }
  };
  mark(found.p2p);
  mark(found.fits);
  mark(found.crossovers);
  mark(found.scaling);
  if (!any) return;
  found.findings.emplace_back(
      "GPUs are emulated, or several ranks share one: these are not the times "
      "of GPUs and their links");
}

void Keep(Session& session, Interconnect found) {
  if (!session.leader()) return;
  SayWhatIsEmulated(session, found);
  const nlohmann::ordered_json json = ToJson(found);
  for (const auto& [name, value] : json.items()) {
    if (!value.empty()) session.AddSection(name, value);
  }
  for (const std::string& finding : found.findings) {
    fmt::print("{}\n", finding);
  }
  for (const std::string& what : session.left_out()) fmt::print("{}\n", what);
}

}  // namespace shardproof
