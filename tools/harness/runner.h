// Runs one variant of one instance: fills, poisons, runs, checks, times,
// records.
//
//     Record r = RunOnWorld(*world, info, info.variants[0], instance, {});
//     if (r.verdict != Verdict::kPassed) Print(r.reason, r.repro);
#ifndef SHARDPROOF_TOOLS_HARNESS_RUNNER_H_
#define SHARDPROOF_TOOLS_HARNESS_RUNNER_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "collectives/interceptor.h"
#include "reports/record.h"
#include "tools/harness/case.h"
#include "tools/harness/measure.h"
#include "tools/harness/rates.h"
#include "tools/harness/world.h"

namespace shardproof {

// Where a variant has passed already in this process.
enum class PassedBefore {
  kNowhere,
  // On other instances of its case, with outputs of this type. One execution of
  // each tier is then enough before the clock starts, and afterwards what the
  // timed executions left is checked.
  kElsewhere,
  // On this instance: one execution is enough before the clock starts.
  kHere,
};

struct RunOptions {
  uint64_t seed = 1;
  int repeats = 3;  // Verified executions per tier, each with fresh inputs.
  bool measure = false;  // Time after verifying; only a passed case is timed.
  MeasureOptions timing = {};
  // What is not kNowhere is also not asked whether its checks would see a lost
  // rank at sizes where that takes longer than the checks.
  PassedBefore passed_before = PassedBefore::kNowhere;
  // Buffers that peers cannot address: the staged paths.
  bool ordinary_memory = false;
  // Above this many elements on all ranks, outputs with a sample dimension are
  // sampled.
  int64_t check_elements = 1 << 22;
  // Above this many operations of a dense reference (Case::flops), likewise.
  double check_flops = 4e9;
  // For the record. `repro_prefix` is what the repro line starts with.
  std::string backend = "thread";
  bool launched = false;  // Ranks are processes: World::of_processes.
  std::string repro_prefix = "shardproof verify";
  // For predicted_us and floor_us; unset: they are left out.
  std::optional<MachineRates> rates = std::nullopt;
  // A rank whose operation failed waits this long for the others to return
  // before it ends their waits by aborting the world.
  double grace_seconds = 1.0;
  // Makes the fault or trace seen by `rank`, or null. Not called when unset.
  std::function<std::unique_ptr<Interceptor>(int rank, int ranks)> interceptor =
      nullptr;
};

// SPMD: every rank of `comm` calls it with equal arguments; every rank gets the
// same record. Never an error for what a variant does wrong: that is a verdict.
// An error means that the world is gone (aborted): FailedRecord describes it.
StatusOr<Record> RunInstance(const Communicator& comm, const CaseInfo& info,
                             const ErasedVariant& variant,
                             const Instance& instance,
                             const RunOptions& options);

// RunInstance on `instance.ranks` ranks of `world`. An aborted world gives a
// record with the verdict `failed`. On processes that hold none of the ranks,
// the record is `unsupported`; the leader always holds one.
Record RunOnWorld(World& world, const CaseInfo& info,
                  const ErasedVariant& variant, const Instance& instance,
                  const RunOptions& options);

// Whether a record says that a planted bug was found: anything but a pass, a
// refusal, or a case that is blind.
bool Kills(const Record& record);

// Everything of a record that is known before the run; verdict `failed` with
// the reason in `status`.
Record FailedRecord(const CaseInfo& info, const ErasedVariant& variant,
                    const Instance& instance, const RunOptions& options,
                    const Status& status);

// "shardproof verify --backend thread --ranks 4 --filter '^c/all_reduce$'
// --variant ring --axis count=7 --seed 1", one line.
std::string ReproLine(const CaseInfo& info, const ErasedVariant& variant,
                      const Instance& instance, const RunOptions& options);

}  // namespace shardproof

#endif  // SHARDPROOF_TOOLS_HARNESS_RUNNER_H_
