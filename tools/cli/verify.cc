// shardproof verify: is every variant right, at every rank count and size?
#include <fmt/format.h>

#include "tools/cli/commands.h"
#include "tools/cli/jobs.h"
#include "tools/cli/mesh_report.h"
#include "tools/cli/session.h"
#include "tools/cli/table.h"

namespace shardproof {

ExitCode RunVerify(const Options& options) {
  auto session = Session::Create(options);
  if (!session.ok()) return Refuse(session.status());
  Session& s = **session;
  const auto ranks = s.Ranks({4});
  if (!ranks.ok()) return Refuse(ranks.status());
  auto jobs = ChooseJobs(options, Purpose::kVerify, *ranks);
  if (!jobs.ok()) return Refuse(jobs.status());
  if (s.leader()) PrintNotesOnOrder(*jobs);
  if (options.time_budget > 0) Interleave(*jobs);
  VerifyTable table;
  Summary summary;
  s.Run(*jobs, {.name = "verify", .budget = options.time_budget},
        [&](const Job&, const Record& record) {
          table.Add(record);
          summary.Add(record);
        });
  if (s.leader()) {
    fmt::print("{}\n{}", table.Text(), summary.Text());
    for (const std::string& what : s.left_out()) fmt::print("{}\n", what);
  }
  // A check that compared nothing is not a pass.
  if (s.leader() && summary.count(Verdict::kPassed) == 0) s.Note(kExitInvalid);
  return s.Finish();
}

}  // namespace shardproof
