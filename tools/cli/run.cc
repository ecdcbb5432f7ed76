// shardproof run: the main job. Verifies every case, then measures it at the
// message sizes and layer shapes of a model.
#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <filesystem>
#include <utility>

#include "tools/cli/commands.h"
#include "tools/cli/environment.h"
#include "tools/cli/history_series.h"
#include "tools/cli/jobs.h"
#include "tools/cli/report_files.h"
#include "tools/cli/session.h"
#include "tools/cli/table.h"
#include "tools/cli/workload.h"

namespace shardproof {
namespace {

// Without --time-budget: less than three minutes, with the instance under way
// and the reports.
constexpr double kBudgetSeconds = 150;
// The most that verifying may take of it. On two cores all instances take 40
// percent; what is not needed is there for measuring.
constexpr double kVerifyShare = 0.6;
// What a reference that is probed takes at a model's sizes: they come last.
constexpr double kProbedSeconds = 20;
bool Probed(const Job& job) { return job.info->probes(job.instance) > 0; }

// Tokens of a layer: enough that the products are products, few enough that an
// 8B model is measured in seconds on two cores.
constexpr int64_t kTokens = 512;
// Larger messages are left out, and said so: two ranks of a laptop would copy
// for minutes.
constexpr int64_t kMostBytes = int64_t{256} << 20;

// Most variants have just been verified in full, and the others are here. At a
// model's sizes, whose reference takes longer than the operation, a sample is
// checked; the record says how many elements that were.
constexpr int64_t kCheckElements = int64_t{1} << 18;
constexpr double kCheckFlops = 2e8;

std::vector<Job> DropHuge(std::vector<Job> jobs, Session& session) {
  size_t dropped = 0;
  std::vector<Job> kept;
  for (Job& job : jobs) {
    if (job.info->bytes(job.instance) > kMostBytes) {
      ++dropped;
    } else {
      kept.push_back(std::move(job));
    }
  }
  if (dropped > 0) {
    session.LeftOut(fmt::format(
        "measure: {} messages above {} left out (bench measures them)", dropped,
        BytesText(static_cast<double>(kMostBytes))));
  }
  return kept;
}

// Variants of a layer or of attention that differ in the algorithms of their
// collectives only, which the rows of the collectives compare: "auto" stands for
// the others.
bool AutoStandsFor(const Job& job) {
  const std::string& name = job.variant->name;
  if (job.info->name.starts_with("collectives/")) return false;
  if (name != "direct" && name != "ring") return false;
  return std::any_of(job.info->variants.begin(), job.info->variants.end(),
                     [](const ErasedVariant& v) { return v.name == "auto"; });
}

std::vector<Job> DropFamilies(std::vector<Job> jobs, Session& session) {
  const auto dropped = static_cast<size_t>(std::erase_if(jobs, AutoStandsFor));
  if (dropped > 0) {
    session.LeftOut(fmt::format(
        "measure: layers and attention with auto, not with direct and ring "
        "(bench measures those {} as well)",
        dropped));
  }
  return jobs;
}

// report.html and junit.xml beside the result file, from what it says.
ExitCode WriteReports(const Options& options) {
  const LoadedFiles files = LoadFiles({options.json});
  if (files.loaded.empty()) return SayErrors(files);
  Report report = ReportOf(files.loaded);
  report.title = "Shardproof: " + options.model;
  // What the usual history lacks is no error of this run.
  const Status added = AddHistory(options.history, report);
  if (!added.ok()) fmt::print(stderr, "shardproof: {}\n", added.message());
  const std::filesystem::path folder =
      std::filesystem::path(options.json).parent_path();
  const ReportOutputs outputs{.html = (folder / "report.html").string(),
                              .junit = (folder / "junit.xml").string()};
  const Status written = WriteOutputs(report, outputs);
  if (!written.ok()) return Refuse(written);
  fmt::print("for a browser: {}; for continuous integration: {}\n",
             outputs.html, outputs.junit);
  return kExitPass;
}

}  // namespace

ExitCode RunMain(const Options& given) {
  Options options = given;
  if (options.model.empty()) options.model = "llama-3.1-8b";
  if (options.json.empty()) options.json = "results.json";
  options.keep = !options.no_history;
  if (options.time_budget <= 0) options.time_budget = kBudgetSeconds;
  auto session = Session::Create(options);
  if (!session.ok()) return Refuse(session.status());
  Session& s = **session;
  const auto ranks = s.Ranks({4});
  if (!ranks.ok()) return Refuse(ranks.status());
  auto verify = ChooseJobs(options, Purpose::kVerify, *ranks);
  if (!verify.ok()) return Refuse(verify.status());
  std::vector<Job> measure;
  std::string names;
  for (const int n : *ranks) {
    const auto workload = WorkloadOf(options.model, options.layout, n, kTokens);
    if (!workload.ok()) return Refuse(workload.status());
    names = workload->name;
    auto jobs = ChooseWorkloadJobs(options, *workload, n);
    if (!jobs.ok()) return Refuse(jobs.status());
    measure.insert(measure.end(), jobs->begin(), jobs->end());
  }
  if (s.leader()) {
    fmt::print("shardproof: {} on {} ranks ({}), {}\n\n", names, ranks->front(),
               s.world().backend(), CpuName());
  }
  const auto start = std::chrono::steady_clock::now();
  Interleave(*verify);
  VerifyTable verified;
  Summary summary;
  s.Run(*verify,
        {.name = "verify", .budget = kVerifyShare * options.time_budget},
        [&](const Job&, const Record& record) {
          verified.Add(record);
          summary.Add(record);
        });
  if (s.leader()) fmt::print("{}", verified.Text());
  BenchTable table;
  if (!s.interrupted() && s.world().healthy()) {
    measure = DropHuge(std::move(measure), s);
    if (options.variant.empty()) {
      measure = DropFamilies(std::move(measure), s);
    }
    Interleave(measure);
    std::stable_partition(measure.begin(), measure.end(),
                          [](const Job& job) { return !Probed(job); });
    MeasureOptions timing = MeasureOptionsOf(options);
    timing.max_seconds = 0.3;
    const std::chrono::duration<double> spent =
        std::chrono::steady_clock::now() - start;
    // Phases know 0 as unlimited.
    const double left = std::max(options.time_budget - spent.count(), 1e-3);
    s.Run(measure,
          {.name = "measure",
           .budget = left,
           .needs =
               [](const Job& job) { return Probed(job) ? kProbedSeconds : 0; },
           .measure = true,
           .trust = true,
           .timing = timing,
           .repeats = 1,
           .check_elements = kCheckElements,
           .check_flops = kCheckFlops},
          [&](const Job&, const Record& record) {
            table.Add(record);
            summary.Add(record);
          });
  }
  if (s.leader()) {
    fmt::print("{}\n{}", table.Text(), summary.Text());
    for (const std::string& what : s.left_out()) fmt::print("{}\n", what);
    if (summary.count(Verdict::kPassed) == 0) s.Note(kExitInvalid);
  }
  const ExitCode code = s.Finish();
  return s.leader() ? Worse(code, WriteReports(options)) : code;
}

}  // namespace shardproof
