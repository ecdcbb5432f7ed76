// shardproof compare: several result files side by side. No verdict: that takes
// several launches (`ab`, `gate`).
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <cmath>
#include <map>
#include <memory>
#include <set>
#include <utility>

#include "reports/key.h"
#include "tools/cli/commands.h"
#include "tools/cli/comparison_table.h"
#include "tools/cli/report_commands.h"
#include "tools/cli/report_files.h"
#include "tools/cli/session.h"
#include "tools/cli/table.h"

namespace shardproof {
namespace {

struct CompareFlags {
  std::vector<std::string> files;
};

using ByKey = std::map<std::string, Record>;

// Of the first file's key to that of another, for keys that both have.
void PrintRatios(const std::vector<LoadedLaunch>& files,
                 const std::vector<ByKey>& records) {
  for (size_t i = 1; i < records.size(); ++i) {
    double sum = 0;
    int n = 0, missing = 0, added = 0;
    for (const auto& [key, record] : records[0]) {
      const auto found = records[i].find(key);
      if (found == records[i].end()) {
        ++missing;
      } else if (record.time_us && found->second.time_us &&
                 record.time_us->median > 0 &&
                 found->second.time_us->median > 0) {
        sum += std::log(found->second.time_us->median / record.time_us->median);
        ++n;
      }
    }
    for (const auto& [key, record] : records[i]) {
      added += records[0].contains(key) ? 0 : 1;
    }
    fmt::print("{}: ", files[i].launch.name);
    if (n > 0) {
      fmt::print("{} in the geometric mean over {} times",
                 ShareText(std::exp(sum / n) - 1), n);
    } else {
      fmt::print("no time in common with {}", files[0].launch.name);
    }
    if (missing > 0) fmt::print("; {} records are missing", missing);
    if (added > 0) fmt::print("; {} are new", added);
    fmt::print("\n");
  }
}

void PrintEnvironments(const std::vector<LoadedLaunch>& files) {
  for (size_t i = 1; i < files.size(); ++i) {
    for (const Difference& d : Differences(files[0].launch.fingerprint,
                                           files[i].launch.fingerprint)) {
      fmt::print("{}: {} is \"{}\", not \"{}\"{}\n", files[i].launch.name,
                 d.field, d.after, d.before,
                 d.machine ? ": another machine" : "");
    }
  }
}

ExitCode Compare(const CompareFlags& flags) {
  const LoadedFiles files = LoadFiles(flags.files);
  const ExitCode errors = SayErrors(files);
  if (files.loaded.size() < 2) {
    if (!files.errors.empty()) return errors;
    return Refuse(InvalidArgument("compare needs two result files or more"));
  }
  std::vector<ByKey> records(files.loaded.size());
  std::set<std::string> keys;
  for (size_t i = 0; i < records.size(); ++i) {
    for (const Record& r : files.loaded[i].launch.records) {
      // A measurement says more than the verification before it.
      const std::string key = KeyOf(r);
      const auto found = records[i].find(key);
      if (found == records[i].end() || r.time_us.has_value()) {
        records[i].insert_or_assign(key, r);
      }
      keys.insert(key);
    }
  }
  std::vector<std::string> header = {"key"};
  for (const LoadedLaunch& one : files.loaded) {
    header.push_back(one.launch.name);
    if (header.size() > 2) header.emplace_back("against the first");
  }
  Table table(header);
  ExitCode code = errors;
  std::vector<std::string> broken;
  bool any = false;
  for (const std::string& key : keys) {
    std::vector<std::string> row = {key};
    bool timed = false;
    const auto first = records[0].find(key);
    for (size_t i = 0; i < records.size(); ++i) {
      const auto found = records[i].find(key);
      const bool there = found != records[i].end();
      const bool time = there && found->second.time_us.has_value();
      timed = timed || time;
      const bool passed = there && found->second.verdict == Verdict::kPassed;
      row.push_back(!there   ? "-"
                    : time   ? TimeText(found->second.time_us->median)
                    : passed ? "passed"
                             : std::string(Name(found->second.verdict)));
      if (i == 0) continue;
      const bool both =
          time && first != records[0].end() && first->second.time_us;
      any = any || (there && first != records[0].end());
      row.push_back(both ? ShareText(found->second.time_us->median /
                                         first->second.time_us->median -
                                     1)
                         : "-");
      if (there && ExitCodeOf(found->second) != kExitPass) {
        code = Worse(code, ExitCodeOf(found->second));
        broken.push_back(
            fmt::format("{}: {}: {}: {}", files.loaded[i].launch.name, key,
                        Name(found->second.verdict), found->second.reason));
      }
    }
    if (timed) table.Add(std::move(row));
  }
  if (table.size() > 0) fmt::print("{}\n", table.Text());
  for (const std::string& line : broken) fmt::print("{}\n", line);
  PrintRatios(files.loaded, records);
  PrintEnvironments(files.loaded);
  fmt::print(
      "One launch says nothing about noise: `shardproof ab` measures in pairs, "
      "`shardproof gate` judges several launches.\n");
  return any ? code : Worse(code, kExitInvalid);
}

}  // namespace

void AddCompareCommand(CLI::App& app, Done done) {
  CLI::App* compare = app.add_subcommand(
      "compare", "Result files side by side: times, ratios, environments");
  const auto flags = std::make_shared<CompareFlags>();
  compare
      ->add_option("files", flags->files,
                   "Two result files or more; the first is what the others are "
                   "compared with")
      ->required()
      ->expected(1, 1000);
  compare->callback([flags, done = std::move(done)] { done(Compare(*flags)); });
}

}  // namespace shardproof
