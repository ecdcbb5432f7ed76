// Which variants of which instances of which cases a command runs.
#ifndef SHARDPROOF_TOOLS_CLI_JOBS_H_
#define SHARDPROOF_TOOLS_CLI_JOBS_H_

#include <cstdint>
#include <string>
#include <vector>

#include "reference/status.h"
#include "tools/cli/options.h"
#include "tools/harness/registry.h"

namespace shardproof {

struct Job {
  const CaseInfo* info = nullptr;
  const ErasedVariant* variant = nullptr;
  Instance instance;
};

// Whether the case of `job` has the axis "count", by which sizes are set.
bool IsSized(const Job& job);

// The three of `names` nearest to `text`, by whole name or last part, as a
// list with commas.
std::string Near(const std::string& text, std::vector<std::string> names);

// The registered cases that options.filter matches. kInvalidArgument: not a
// regular expression, or nothing matches; then names that are near are given.
StatusOr<std::vector<const CaseInfo*>> ChooseCases(const Options& options);

// Every chosen variant of every instance, for each of `ranks`. An axis that no
// chosen case has, a value that it cannot take, and a variant pattern that
// matches nothing are kInvalidArgument.
StatusOr<std::vector<Job>> ChooseJobs(const Options& options, Purpose purpose,
                                      const std::vector<int>& ranks);

// As ChooseJobs on `ranks`, at every size of `sizes`: bytes of the whole
// operation, the n of algbw, as nccl-tests counts. The axis "count" is set to
// the largest that is no larger (in v forms, whose blocks are of about a count,
// to what comes near it), but to 1 at least where a size is not 0. Sizes that
// come to one count are one job, and a case without that axis is there once.
StatusOr<std::vector<Job>> ChooseSizedJobs(const Options& options,
                                           Purpose purpose,
                                           const std::vector<int64_t>& sizes,
                                           int ranks);

// The instances that `workload` asks of the chosen cases.
StatusOr<std::vector<Job>> ChooseWorkloadJobs(const Options& options,
                                              const Workload& workload,
                                              int ranks);

// One job of each (case, variant) in turn, so that a budget that ends early has
// been fair to all.
void Interleave(std::vector<Job>& jobs);

}  // namespace shardproof

#endif  // SHARDPROOF_TOOLS_CLI_JOBS_H_
