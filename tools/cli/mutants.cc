// shardproof mutants: would the checks notice? Every fault against every
// variant, and the bugs that cases list.
#include <fmt/format.h>
#include <fmt/ranges.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <cstdio>
#include <fstream>
#include <map>
#include <nlohmann/json.hpp>
#include <set>

#include "tools/cli/commands.h"
#include "tools/cli/interrupt.h"
#include "tools/cli/jobs.h"
#include "tools/cli/mutation.h"
#include "tools/cli/table.h"

namespace shardproof {
namespace {

using Clock = std::chrono::steady_clock;
using Json = nlohmann::ordered_json;
using Kind = MutationResult::Kind;

// Column heads, in the order of AllFaults().
constexpr std::array<const char*, 12> kHeads = {
    "drop", "twice", "swap",  "stale", "tail",  "tear",
    "root", "group", "scale", "row",   "delay", "absent"};

std::string Cell(const MutationResult& result) {
  switch (result.kind) {
    case Kind::kKilled:
      return "x";
    case Kind::kHarmless:
      return "ok";
    case Kind::kNotApplicable:
      return "-";
    case Kind::kSurvived:
      return "SURVIVED";
    case Kind::kBroken:
      return "FAILS";
  }
  return "?";
}

bool IsBad(const MutationResult& result) {
  return result.kind == Kind::kSurvived || result.kind == Kind::kBroken;
}

// As much as fits a line, without the values.
std::string Short(std::string text, size_t most) {
  text.resize(
      std::min({text.size(), text.find(", the first at"), text.find("; ")}));
  if (text.size() <= most) return text;
  return text.substr(0, most - 3) + "...";
}

class KillMatrix {
 public:
  explicit KillMatrix(std::vector<Fault> faults) : faults_(std::move(faults)) {}

  void Add(const std::string& row, Fault fault, const MutationResult& result) {
    Note(row, std::string(Name(fault)), result);
    if (result.kind == Kind::kNotApplicable) {
      ++reasons_[{std::string(Name(fault)), result.reason}];
    }
    AddCell(row, result);
  }
  // A variant into which nothing can be planted, or that fails by itself.
  void AddWhole(const std::string& row, const MutationResult& result) {
    Note(row, "none", result);
    ++reasons_[{"all", result.reason}];
    for (size_t i = 0; i < faults_.size(); ++i) AddCell(row, result);
  }
  void AddMutant(const std::string& case_name, const std::string& mutant,
                 const MutationResult& result) {
    Note(case_name, "mutant/" + mutant, result);
    mutants_.push_back(
        {case_name, mutant, Cell(result), Short(result.reason, 100)});
  }

  bool survived() const { return !bad_.empty(); }
  int killed() const { return killed_; }

  void Print() const {
    std::vector<std::string> head = {"case", "variant"};
    for (const Fault fault : faults_) {
      head.emplace_back(kHeads[static_cast<size_t>(fault)]);
    }
    Table table(head);
    for (const std::string& row : order_) {
      const size_t space = row.find(' ');
      std::vector<std::string> line = {row.substr(0, space),
                                       row.substr(space + 1)};
      const auto& cells = cells_.at(row);
      line.insert(line.end(), cells.begin(), cells.end());
      table.Add(line);
    }
    fmt::print("{}\n", table.Text());
    fmt::print(
        "x: the fault was noticed. ok: the result is the same although "
        "a rank was late.\n-: the fault found nothing to act on:\n");
    for (const auto& [what, count] : reasons_) {
      fmt::print("  {:<18} {:>3} x  {}\n", what.first, count, what.second);
    }
    fmt::print("\n");
    for (const Fault fault : faults_) {
      fmt::print("  {:<6} {:<18} {}\n", kHeads[static_cast<size_t>(fault)],
                 Name(fault), Describe(fault));
    }
    if (!mutants_.empty()) {
      Table listed({"case", "mutant", "", "noticed by"});
      for (const auto& line : mutants_) listed.Add(line);
      fmt::print("\n{}", listed.Text());
    }
    fmt::print("\n{} noticed, {} survived or failed\n", killed_, bad_.size());
    for (const std::string& line : bad_) fmt::print("{}\n", line);
  }
  const Json& json() const { return json_; }

 private:
  void AddCell(const std::string& row, const MutationResult& result) {
    cells_[row].push_back(Cell(result));
    if (cells_[row].size() == 1) order_.push_back(row);
  }
  void Note(const std::string& row, const std::string& bug,
            const MutationResult& result) {
    json_.push_back({{"where", row},
                     {"bug", bug},
                     {"result", Cell(result)},
                     {"reason", result.reason}});
    if (result.kind == Kind::kKilled) ++killed_;
    if (!IsBad(result)) return;
    json_.back()["repro"] = result.repro;
    bad_.push_back(fmt::format("{} {}: {}: {}\n  {}", row, bug, Cell(result),
                               result.reason, result.repro));
  }

  std::vector<Fault> faults_;
  std::vector<std::string> order_;
  std::map<std::string, std::vector<std::string>> cells_;
  std::map<std::pair<std::string, std::string>, int> reasons_;
  std::vector<std::vector<std::string>> mutants_;
  std::vector<std::string> bad_;
  int killed_ = 0;
  Json json_ = Json::array();
};

void ShowProgress(const std::string& what) {
  if (isatty(STDERR_FILENO) == 0) return;
  fmt::print(stderr, "\r\033[K{}", what);
  std::fflush(stderr);
}

Status WriteJson(const std::string& path, const Json& json) {
  std::ofstream out(path);
  out << json.dump(2) << "\n";
  out.flush();
  if (!out) return Unavailable("{} cannot be written", path);
  return OkStatus();
}

struct Row {
  const CaseInfo* info;
  const ErasedVariant* variant;
  int ranks;
};

// Without repetition, in order.
std::vector<Row> RowsOf(const std::vector<Job>& jobs) {
  std::vector<Row> rows;
  for (const Job& job : jobs) {
    const Row row{job.info, job.variant, job.instance.ranks};
    if (rows.empty() || rows.back().info != row.info ||
        rows.back().variant != row.variant || rows.back().ranks != row.ranks) {
      rows.push_back(row);
    }
  }
  return rows;
}

std::string NameOf(const Row& row, size_t rank_counts) {
  std::string name = fmt::format("{} {}", row.info->name, row.variant->name);
  return rank_counts > 1 ? fmt::format("{} ({})", name, row.ranks) : name;
}

class Campaign {
 public:
  Campaign(const Options& options, Mutation& mutation,
           std::vector<Fault> faults, AxisOverrides overrides,
           size_t rank_counts)
      : options_(options),
        mutation_(mutation),
        faults_(std::move(faults)),
        overrides_(std::move(overrides)),
        rank_counts_(rank_counts),
        matrix_(faults_) {}

  bool Spent() const {
    return Interrupted() ||
           (options_.time_budget > 0 &&
            std::chrono::duration<double>(Clock::now() - start_).count() >
                options_.time_budget);
  }

  Status RunFaults(const Row& row) {
    const std::string name = NameOf(row, rank_counts_);
    SP_ASSIGN_OR_RETURN(std::vector<Instance> instances,
                        MutationInstances(*row.info, row.ranks, overrides_));
    MutationResult base;
    if (row.variant->native) {
      base.reason = "native: its transport is the library's, not ours";
    } else {
      base = mutation_.Baseline(*row.info, *row.variant, instances);
    }
    if (base.kind != Kind::kHarmless) {
      matrix_.AddWhole(name, base);
      return OkStatus();
    }
    for (const Fault fault : faults_) {
      ShowProgress(fmt::format("{} {}", name, Name(fault)));
      matrix_.Add(name, fault,
                  mutation_.Plant(fault, *row.info, *row.variant, instances));
    }
    ShowProgress("");
    return OkStatus();
  }

  Status RunMutants(const CaseInfo& info, int ranks) {
    for (const ErasedVariant& mutant : info.mutants) {
      ShowProgress(fmt::format("{} {}", info.name, mutant.name));
      SP_ASSIGN_OR_RETURN(const std::vector<Instance> instances,
                          MutantInstances(info, mutant, ranks, overrides_));
      matrix_.AddMutant(info.name, mutant.name,
                        mutation_.RunMutant(info, mutant, instances));
    }
    ShowProgress("");
    return OkStatus();
  }

  const KillMatrix& matrix() const { return matrix_; }

 private:
  const Options& options_;
  Mutation& mutation_;
  const std::vector<Fault> faults_;
  const AxisOverrides overrides_;
  const size_t rank_counts_;
  KillMatrix matrix_;
  const Clock::time_point start_ = Clock::now();
};

StatusOr<std::vector<Fault>> FaultsOf(const Options& options) {
  if (options.fault.empty()) {
    return std::vector<Fault>(AllFaults().begin(), AllFaults().end());
  }
  SP_ASSIGN_OR_RETURN(const Fault fault, ParseFault(options.fault));
  return std::vector<Fault>{fault};
}

Status RunAll(Campaign& campaign, const std::vector<Row>& rows, bool listed_too,
              std::string& left_out) {
  std::set<std::pair<const CaseInfo*, int>> done;
  for (size_t i = 0; i < rows.size(); ++i) {
    if (campaign.Spent()) {
      left_out = fmt::format("{} of {} variants left out ({})", rows.size() - i,
                             rows.size(),
                             Interrupted() ? "interrupted" : "out of time");
      break;
    }
    const Row& row = rows[i];
    SP_RETURN_IF_ERROR(campaign.RunFaults(row));
    if (listed_too && done.insert({row.info, row.ranks}).second) {
      SP_RETURN_IF_ERROR(campaign.RunMutants(*row.info, row.ranks));
    }
  }
  return OkStatus();
}

}  // namespace

ExitCode RunMutants(const Options& options) {
  const auto faults = FaultsOf(options);
  if (!faults.ok()) return Refuse(faults.status());
  const auto overrides = OverridesOf(options);
  if (!overrides.ok()) return Refuse(overrides.status());
  const auto ranks = RanksOf(options, {4});
  if (!ranks.ok()) return Refuse(ranks.status());
  const auto jobs = ChooseJobs(options, Purpose::kSmoke, *ranks);
  if (!jobs.ok()) return Refuse(jobs.status());
  auto mutation = Mutation::Create(options);
  if (!mutation.ok()) return Refuse(mutation.status());

  Campaign campaign(options, **mutation, *faults, *overrides, ranks->size());
  std::string left_out;
  const bool listed_too = options.variant.empty() && options.fault.empty();
  const Status status = RunAll(campaign, RowsOf(*jobs), listed_too, left_out);
  if (!status.ok()) return Refuse(status);
  const KillMatrix& matrix = campaign.matrix();
  matrix.Print();
  if (!left_out.empty()) fmt::print("{}\n", left_out);
  ExitCode code = matrix.survived() ? kExitMismatch : kExitPass;
  // A check that checked nothing is not a pass.
  if (matrix.killed() == 0) code = Worse(code, kExitInvalid);
  if (!options.json.empty()) {
    const Status written =
        WriteJson(options.json, {{"command", options.command_line},
                                 {"left_out", left_out},
                                 {"results", matrix.json()}});
    if (!written.ok()) code = Worse(code, Refuse(written));
  }
  return Interrupted() ? kExitInterrupted : code;
}

}  // namespace shardproof
