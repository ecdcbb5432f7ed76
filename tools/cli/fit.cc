// shardproof fit: time over size of collectives, as fitted, as predicted, and
// where one algorithm becomes faster than another.
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <limits>
#include <map>
#include <optional>
#include <utility>

#include "reports/fitting/crossover.h"
#include "tools/cli/commands.h"
#include "tools/cli/fit_group.h"
#include "tools/cli/interconnect_commands.h"
#include "tools/cli/jobs.h"
#include "tools/cli/machine_model.h"
#include "tools/cli/table.h"

namespace shardproof {
namespace {

// Every variant at every size is set up and measured anew so many times: where
// its buffers come to lie makes more of a difference than its samples show. The
// range of 6 medians holds the median with 1 - 2 / 2^6, more than 95 percent.
// Records of the first round go into the result file.
constexpr int kRounds = 6;
constexpr double kSecondsPerTime = 0.05, kSecondsPerRound = 0.02;
constexpr size_t kMostPrinted = 12;

// The chosen variants at every size; cases without an axis "count" have none.
StatusOr<std::vector<Job>> JobsOf(const Options& options,
                                  const std::vector<int64_t>& sizes,
                                  const std::vector<int>& ranks) {
  Options one = options;
  one.min_bytes = one.max_bytes = one.step_factor = "";
  if (one.filter == Options().filter) one.filter = "^collectives/all_reduce$";
  if (one.dtype.empty() && one.datatype.empty()) one.dtype = "f32";
  SP_ASSIGN_OR_RETURN(const AxisOverrides overrides, OverridesOf(one));
  const auto dtypes = overrides.find("dtype");
  if (dtypes == overrides.end() || dtypes->second.size() != 1) {
    return InvalidArgument("--dtype: fit takes one at a time");
  }
  if (overrides.contains("count")) {
    return InvalidArgument("--axis count: fit takes its sizes from -b -e -f");
  }
  std::vector<Job> jobs;
  for (const int n : ranks) {
    SP_ASSIGN_OR_RETURN(const std::vector<Job> more,
                        ChooseSizedJobs(one, Purpose::kBench, sizes, n));
    for (const Job& job : more) {
      if (IsSized(job)) jobs.push_back(job);
    }
  }
  if (!jobs.empty()) return jobs;
  return InvalidArgument("--filter {}: no chosen case has an axis \"count\"",
                         options.filter);
}

std::string Text(const Estimate& e) {
  return fmt::format("{:.4g} [{:.4g}, {:.4g}]", e.value, e.low, e.high);
}

std::string Percent(double share) {
  return std::isnan(share) ? "-" : fmt::format("{:.1f}%", 100 * share);
}

void Print(const std::vector<Fit>& fits) {
  Table table({"case", "params", "ranks", "variant", "sizes", "alpha us",
               "beta us/MiB", "rate", "half at", "fit worst/median",
               "predicted worst/median"});
  for (const Fit& f : fits) {
    for (const Fit::Piece& p : f.pieces) {
      const bool first = &p == f.pieces.data();
      table.Add(
          {first ? f.case_name : "", first ? f.params : "",
           first ? fmt::format("{}", f.ranks) : "", first ? f.variant : "",
           fmt::format("{} to {}", BytesText(static_cast<double>(p.from_bytes)),
                       BytesText(static_cast<double>(p.to_bytes))),
           Text(p.alpha_us), Text(p.beta_us_per_mib),
           first ? RateText(f.asymptotic_gbps * 1e3, 1) : "",
           first ? BytesText(f.half_bandwidth_bytes) : "",
           first ? Percent(f.worst_error) + " / " + Percent(f.median_error)
                 : "",
           first ? Percent(f.worst_prediction_error) + " / " +
                       Percent(f.median_prediction_error)
                 : ""});
    }
  }
  fmt::print("{}\n", table.Text());
}

void Print(const std::vector<Crossover>& crossovers) {
  for (size_t i = 0; i < std::min(crossovers.size(), kMostPrinted); ++i) {
    const Crossover& c = crossovers[i];
    fmt::print(
        "{} ({}) on {} ranks: {} is faster than {} from {} on [{}, {}]\n",
        c.case_name, c.params, c.ranks, c.to, c.from, BytesText(c.bytes),
        BytesText(c.low), BytesText(c.high));
  }
  if (crossovers.size() > kMostPrinted) {
    fmt::print("and {} more crossovers, in the result file\n",
               crossovers.size() - kMostPrinted);
  }
}

// The messages and the memory of the machine as fits of their own.
void AddMachine(const MachineModel& model, const std::string& backend,
                int ranks, Interconnect& found) {
  const auto add = [&](const char* name, const char* what,
                       const std::string& among, const Curve& curve,
                       const Piecewise& pieces) {
    Fit fit = DescribeFit(curve, pieces);
    fit.case_name = name;
    fit.variant = what;
    fit.backend = backend;
    fit.ranks = ranks;
    const Estimate& beta = fit.pieces.back().beta_us_per_mib;
    const double mib = 1 << 20;
    found.findings.push_back(fmt::format(
        "{} {}: {:.4g} us, and {} for large ones [{}, {}], half of it from {} "
        "on",
        name, among, fit.pieces.front().alpha_us.value,
        RateText(mib, beta.value), RateText(mib, beta.high),
        RateText(mib, beta.low), BytesText(fit.half_bandwidth_bytes)));
    found.fits.push_back(std::move(fit));
  };
  add("messages", "one_way", "from rank 0 to rank 1", model.one_way_curve,
      model.one_way);
  const std::string all = fmt::format("on {} ranks, all at once", ranks);
  add("messages", "shift", all, model.message_curve, model.messages);
  if (model.memory.has_value()) {
    add("memory", "meeting", all, model.memory_curve, *model.memory);
  }
}

Status Measure(Session& session, const Options& options,
               const std::vector<int64_t>& sizes, const std::vector<int>& ranks,
               std::map<int, MachineModel>& models) {
  for (const int n : ranks) {
    if (n < 2 || !session.GoOn(true)) continue;
    SP_RETURN_IF_ERROR(session.RunOnRanks(
        "plain messages", n, options.timeout,
        [&](const Communicator& comm) -> Status {
          SP_ASSIGN_OR_RETURN(
              MachineModel model,
              MeasureMachine(comm, sizes,
                             LinkTiming(options, kSecondsPerTime)));
          if (comm.rank() == 0) models[n] = std::move(model);
          return OkStatus();
        }));
  }
  return OkStatus();
}

void Describe(std::map<FitKey, FitGroup>& groups,
              const std::map<int, MachineModel>& models,
              const std::string& backend, uint64_t seed, Interconnect& found) {
  for (const auto& [ranks, model] : models) {
    AddMachine(model, backend, ranks, found);
  }
  for (auto& [key, group] : groups) {
    const auto model = models.find(key.ranks);
    for (auto& [name, measured] : group.variants) {
      const auto pieces = FitCurve(measured.curve);
      if (!pieces.ok()) {
        found.findings.push_back(fmt::format("{} {} on {} ranks: no fit: {}",
                                             key.case_name, name, key.ranks,
                                             pieces.status().message()));
        continue;
      }
      std::function<double(const Curve::Point&)> predict;
      if (measured.costed && model != models.end()) {
        predict = [model,
                   in_memory = measured.in_memory](const Curve::Point& p) {
          return model->second.PredictUs({.alpha_count = p.cost.alpha_count,
                                          .beta_bytes = p.cost.beta_bytes,
                                          .gamma_bytes = p.cost.gamma_bytes,
                                          .total = {}},
                                         in_memory);
        };
      }
      Fit fit = DescribeFit(measured.curve, *pieces, predict);
      fit.case_name = key.case_name;
      fit.variant = name;
      fit.backend = backend;
      fit.params = key.params;
      fit.ranks = key.ranks;
      found.fits.push_back(std::move(fit));
    }
    for (Crossover& c : CrossoversOf(key, group, backend, seed)) {
      found.crossovers.push_back(std::move(c));
    }
    if (std::string s = WinnersSentence(key, group); !s.empty()) {
      found.findings.push_back(std::move(s));
    }
  }
}

ExitCode WriteTuning(const std::map<FitKey, FitGroup>& groups,
                     const std::string& path) {
  const TuningTable table = TuningOf(groups);
  if (table.rows().empty()) {
    return Refuse(InvalidArgument(
        "--tuning {}: nothing was measured of a case whose `auto` reads it",
        path));
  }
  const Status written = WriteText(path, table.Text());
  if (!written.ok()) return Refuse(written);
  fmt::print("{} rows in {}: SHARDPROOF_TUNING={} makes `auto` choose so\n",
             table.rows().size(), path, path);
  return kExitPass;
}

}  // namespace

ExitCode RunFit(const Options& options, const std::string& tuning) {
  const auto sizes = SizesOf(options, 256, 4 << 20, 2);
  if (!sizes.ok()) return Refuse(sizes.status());
  if (sizes->size() < kLeastSizes) {
    return Refuse(InvalidArgument(
        "-b -e -f: a fit takes at least {} sizes, and these are {}",
        kLeastSizes, sizes->size()));
  }
  auto session = Session::Create(options);
  if (!session.ok()) return Refuse(session.status());
  Session& s = **session;
  const auto ranks = s.Ranks({4});
  if (!ranks.ok()) return Refuse(ranks.status());
  auto jobs = JobsOf(options, *sizes, *ranks);
  if (!jobs.ok()) return Refuse(jobs.status());

  std::map<int, MachineModel> models;
  const Status measured = Measure(s, options, *sizes, *ranks, models);
  if (!measured.ok()) {
    if (!s.interrupted()) s.Note(Refuse(measured));
    return s.Finish();
  }
  for (Job& job : *jobs) {
    const auto model = models.find(job.instance.ranks);
    if (model != models.end()) job.instance.node_of = model->second.node_of;
  }
  std::map<FitKey, FitGroup> groups;
  Summary summary;
  const auto start = std::chrono::steady_clock::now();
  for (int round = 0; round < kRounds && !s.interrupted(); ++round) {
    const double spent =
        std::chrono::duration<double>(std::chrono::steady_clock::now() - start)
            .count();
    // A budget that is spent leaves nothing to a round, and 0 would be none.
    const double left = options.time_budget > 0
                            ? std::max(options.time_budget - spent, 1e-3)
                            : 0;
    s.Run(*jobs,
          {.name = fmt::format("fit, round {} of {}", round + 1, kRounds),
           .budget = left,
           .measure = true,
           .keep = round == 0,
           .timing = LinkTiming(options, kSecondsPerRound),
           .repeats = 1},
          [&](const Job& job, const Record& record) {
            if (round == 0) summary.Add(record);
            AddToGroup(job, record, groups);
          });
  }
  if (s.leader()) {
    for (auto& [key, group] : groups) {
      Finish(group);
      const auto model = models.find(key.ranks);
      group.shared = model != models.end() && model->second.memory.has_value();
    }
    Interconnect found;
    Describe(groups, models, std::string(s.world().backend()), options.seed,
             found);
    Print(found.fits);
    Print(found.crossovers);
    fmt::print("{}", summary.Text());
    Keep(s, std::move(found));
    if (groups.empty()) s.Note(kExitInvalid);
    if (!tuning.empty()) s.Note(WriteTuning(groups, tuning));
  }
  return s.Finish();
}

}  // namespace shardproof
