// shardproof bench: how fast is every variant, once it is known to be right?
#include <fmt/format.h>

#include <algorithm>
#include <list>

#include "tools/cli/commands.h"
#include "tools/cli/jobs.h"
#include "tools/cli/mesh_report.h"
#include "tools/cli/plan.h"
#include "tools/cli/session.h"
#include "tools/cli/table.h"
#include "tools/cli/workload.h"

namespace shardproof {
namespace {

// The sizes that -b, -e and -f ask for.
StatusOr<std::vector<int64_t>> SizesToBench(const Options& options) {
  const std::string from =
      options.min_bytes.empty() ? options.max_bytes : options.min_bytes;
  SP_ASSIGN_OR_RETURN(const int64_t low, ParseBytes(from));
  SP_ASSIGN_OR_RETURN(
      const int64_t high,
      ParseBytes(options.max_bytes.empty() ? from : options.max_bytes));
  int64_t factor = 2;
  if (!options.step_factor.empty()) {
    SP_ASSIGN_OR_RETURN(factor, ParseBytes(options.step_factor));
  }
  if (high < low || factor < 2) {
    return InvalidArgument(
        "-b {} -e {} -f {}: the sizes go up, by a factor of at least 2", low,
        high, factor);
  }
  std::vector<int64_t> sizes;
  for (int64_t bytes = low; bytes <= high;
       bytes = bytes == 0 ? 1 : bytes * factor) {
    sizes.push_back(bytes);
    if (bytes > high / factor) break;
  }
  return sizes;
}

StatusOr<std::vector<Job>> Choose(const Options& options,
                                  const std::vector<int>& ranks) {
  if (options.model.empty()) {
    if (options.min_bytes.empty() && options.max_bytes.empty()) {
      return ChooseJobs(options, Purpose::kBench, ranks);
    }
    SP_ASSIGN_OR_RETURN(const std::vector<int64_t> sizes,
                        SizesToBench(options));
    std::vector<Job> jobs;
    for (const int n : ranks) {
      SP_ASSIGN_OR_RETURN(const std::vector<Job> more,
                          ChooseSizedJobs(options, Purpose::kBench, sizes, n));
      jobs.insert(jobs.end(), more.begin(), more.end());
    }
    return jobs;
  }
  if (!options.mesh.empty()) {
    return InvalidArgument(
        "--mesh {} and --model {}: a model is cut by --tp --cp --pp --dp",
        options.mesh, options.model);
  }
  std::vector<Job> jobs;
  for (const int n : ranks) {
    SP_ASSIGN_OR_RETURN(const Workload workload,
                        WorkloadOf(options.model, options.layout, n, 0));
    SP_ASSIGN_OR_RETURN(const std::vector<Job> more,
                        ChooseWorkloadJobs(options, workload, n));
    jobs.insert(jobs.end(), more.begin(), more.end());
  }
  if (jobs.empty()) {
    return InvalidArgument(
        "none of the chosen cases has anything to do for {} in this layout: "
        "choose others with --filter, or other --tp --cp --pp --dp",
        options.model);
  }
  return jobs;
}

}  // namespace

ExitCode RunBench(const Options& given) {
  Options options = given;
  if (options.gpus > 1 && options.ranks.empty()) options.ranks = {options.gpus};
  auto session = Session::Create(options);
  if (!session.ok()) return Refuse(session.status());
  Session& s = **session;
  const auto ranks = s.Ranks({4});
  if (!ranks.ok()) return Refuse(ranks.status());
  auto jobs = Choose(options, *ranks);
  if (!jobs.ok()) return Refuse(jobs.status());
  std::list<ErasedVariant> slowed;
  if (!options.plan.empty()) {
    const auto plan = ReadPlan(options.plan);
    if (!plan.ok()) return Refuse(plan.status());
    const bool slows = std::ranges::any_of(
        *plan, [](const auto& entry) { return entry.second > 0; });
    if (slows && !options.history.empty()) {
      return Refuse(InvalidArgument(
          "--plan {} slows something down on purpose: that is not stored in a "
          "history",
          options.plan));
    }
    *jobs = Planned(*jobs, *plan, options, s.world().backend(), slowed);
    if (jobs->empty()) {
      return Refuse(InvalidArgument(
          "--plan {}: it names nothing that is chosen here", options.plan));
    }
  }
  if (s.leader()) PrintNotesOnOrder(*jobs);
  if (options.time_budget > 0) Interleave(*jobs);
  BenchTable table;
  Summary summary;
  s.Run(*jobs,
        {.name = "bench",
         .budget = options.time_budget,
         .measure = true,
         .timing = MeasureOptionsOf(options),
         .blocks = options.blocks,
         .repeats = 1},
        [&](const Job&, const Record& record) {
          table.Add(record);
          summary.Add(record);
        });
  if (s.leader()) {
    fmt::print("{}\n{}", table.Text(), summary.Text());
    for (const std::string& what : s.left_out()) fmt::print("{}\n", what);
    if (summary.count(Verdict::kPassed) == 0) s.Note(kExitInvalid);
  }
  return s.Finish();
}

}  // namespace shardproof
