// Planted bugs against the checks: one fault, or one mutant of a case, at a
// time. Ranks are threads, since what hangs has to be ended and started anew.
#ifndef SHARDPROOF_TOOLS_CLI_MUTATION_H_
#define SHARDPROOF_TOOLS_CLI_MUTATION_H_

#include <memory>
#include <string>
#include <vector>

#include "tools/cli/options.h"
#include "tools/cli/watchdog.h"
#include "tools/harness/faults.h"
#include "tools/harness/registry.h"
#include "tools/harness/runner.h"
#include "tools/harness/world.h"

namespace shardproof {

struct MutationResult {
  enum class Kind {
    kKilled,         // Noticed.
    kSurvived,       // Not noticed; or the culprit was late, and it mattered.
    kHarmless,       // The culprit was late, and the result is the same.
    kNotApplicable,  // Nothing to act on.
    kBroken          // It fails with no bug planted.
  };
  Kind kind = Kind::kNotApplicable;
  std::string reason;  // What noticed it, or why there was nothing to notice.
  std::string repro;   // Of a survivor, and of what is broken.
};

// Small instances at which faults can strike: f32 and an integer, sums, sizes
// on both sides of the limit of eager operations, the smoke values of all other
// axes; or what `overrides` asks for.
StatusOr<std::vector<Instance>> MutationInstances(
    const CaseInfo& info, int ranks, const AxisOverrides& overrides);
// Up to three of the instances for verification that `mutant` applies to.
StatusOr<std::vector<Instance>> MutantInstances(const CaseInfo& info,
                                                const ErasedVariant& mutant,
                                                int ranks,
                                                const AxisOverrides& overrides);

class Mutation {
 public:
  static StatusOr<std::unique_ptr<Mutation>> Create(const Options& options);

  // The instances at which `variant` passes with no fault planted; the others
  // are dropped. kBroken where one fails, kNotApplicable where none is left.
  MutationResult Baseline(const CaseInfo& info, const ErasedVariant& variant,
                          std::vector<Instance>& instances);
  // Plants `fault` on each rank in turn until it strikes, at each instance.
  // Every strike must be noticed.
  MutationResult Plant(Fault fault, const CaseInfo& info,
                       const ErasedVariant& variant,
                       const std::vector<Instance>& instances);
  // Every instance must fail.
  MutationResult RunMutant(const CaseInfo& info, const ErasedVariant& mutant,
                           const std::vector<Instance>& instances);

 private:
  Mutation(const Options& options, std::unique_ptr<World> world);
  Record Run(const CaseInfo& info, const ErasedVariant& variant,
             const Instance& instance, const RunOptions& run, double seconds);

  uint64_t seed_;
  double slowest_ = 0;  // Run of the last Baseline, in seconds.
  std::unique_ptr<World> world_;
  std::unique_ptr<Watchdog> watchdog_;
};

}  // namespace shardproof

#endif  // SHARDPROOF_TOOLS_CLI_MUTATION_H_
