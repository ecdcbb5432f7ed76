// Which instances a launch measures, and which of them are made slower on
// purpose: what `ab` and `calibrate` hand to the launches that they start.
//
// A plan is a text file. Each line is a share and a key (reports/key.h); empty
// lines and lines that start with # are skipped:
//
//     0     collectives/all_reduce ring thread 2 dtype=f32 count=1024 op=sum
//     0.05  collectives/broadcast direct thread 2 dtype=f32 count=1024
//
// With a share s one rank waits after each operation for s times as long as the
// operation took it. A sample is the maximum over ranks, so it grows by the
// factor 1 + s, whatever the operation takes on the day.
#ifndef SHARDPROOF_TOOLS_CLI_PLAN_H_
#define SHARDPROOF_TOOLS_CLI_PLAN_H_

#include <list>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "reference/status.h"
#include "tools/cli/jobs.h"

namespace shardproof {

// Key to share.
using Plan = std::map<std::string, double>;

// kUnavailable: not readable. kInvalidArgument quotes the line that is not a
// share (0 to 10) and a key.
StatusOr<Plan> ReadPlan(const std::string& path);
StatusOr<Plan> ParsePlan(const std::string& text, const std::string& name);
// What ParsePlan reads.
std::string PlanText(const Plan& plan);

// `variant` with one rank, the last, slower by `share`.
ErasedVariant Slowed(const ErasedVariant& variant, double share);

// The key that the record of `job` will have.
std::string KeyOf(const Job& job, const Options& options,
                  std::string_view backend);

// The jobs that a plan names, slowed as it says. Slowed variants live in
// `owned`. A key of the plan that no job has is left out: the other build may
// know it.
std::vector<Job> Planned(const std::vector<Job>& jobs, const Plan& plan,
                         const Options& options, std::string_view backend,
                         std::list<ErasedVariant>& owned);

}  // namespace shardproof

#endif  // SHARDPROOF_TOOLS_CLI_PLAN_H_
