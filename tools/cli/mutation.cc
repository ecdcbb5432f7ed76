#include "tools/cli/mutation.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdio>
#include <map>
#include <set>
#include <utility>

#include "tools/cli/exit_code.h"
#include "tools/cli/interrupt.h"

namespace shardproof {
namespace {

using Kind = MutationResult::Kind;

// A correct run takes milliseconds; these are for machines that are busy.
constexpr double kSeconds = 20;
// Where a hang is what is expected, besides four times what the variant takes with
// no fault planted.
constexpr double kHangSeconds = 0.4;
constexpr double kGraceSeconds = 10;
constexpr size_t kMostInstances = 4;

bool Failed(const Record& record) {
  return record.verdict == Verdict::kIncorrect ||
         record.verdict == Verdict::kFailed ||
         record.verdict == Verdict::kSuspect;
}

bool HangIsExpected(Fault fault) {
  return fault == Fault::kNeverArrive || fault == Fault::kWrongRoot;
}

// Those of `wanted` that the axis has, or its first values.
std::vector<std::string> Among(const AxisInfo& axis,
                               const std::vector<std::string>& wanted) {
  std::vector<std::string> values;
  for (const std::string& value : wanted) {
    if (std::find(axis.verify.begin(), axis.verify.end(), value) !=
        axis.verify.end()) {
      values.push_back(value);
    }
  }
  return values.empty() ? axis.smoke : values;
}

AxisOverrides Known(const CaseInfo& info, const AxisOverrides& overrides) {
  AxisOverrides own;
  for (const AxisInfo& axis : info.axes) {
    const auto found = overrides.find(axis.name);
    if (found != overrides.end()) own.insert(*found);
  }
  return own;
}

// At most `most` of `items`, from the first to the last.
std::vector<Instance> Spread(const std::vector<Instance>& items, size_t most) {
  if (items.size() <= most) return items;
  std::vector<Instance> out;
  for (size_t i = 0; i < most; ++i) {
    out.push_back(items[i * (items.size() - 1) / (most - 1)]);
  }
  return out;
}

std::string NeverStruck(Fault fault) {
  switch (fault) {
    case Fault::kWrongRoot:
      return "no operation has a root";
    case Fault::kWrongGroup:
      return "no rank ever holds the payload of two others at once";
    case Fault::kDelayRank:
    case Fault::kNeverArrive:
      return "there is no operation to enter";
    default:
      return "no payload crosses that it could change";
  }
}

}  // namespace

StatusOr<std::vector<Instance>> MutationInstances(
    const CaseInfo& info, int ranks, const AxisOverrides& overrides) {
  AxisOverrides chosen = Known(info, overrides);
  for (const AxisInfo& axis : info.axes) {
    if (chosen.contains(axis.name)) continue;
    if (axis.name == "dtype") {
      chosen[axis.name] = Among(axis, {"f32", "i32"});
    } else if (axis.name == "op") {
      chosen[axis.name] = Among(axis, {"sum"});
    } else if (axis.name == "count") {
      chosen[axis.name] = {"301", "6007"};
    }
  }
  SP_ASSIGN_OR_RETURN(std::vector<Instance> instances,
                      info.expand(Purpose::kSmoke, ranks, chosen));
  if (instances.empty()) {
    SP_ASSIGN_OR_RETURN(instances, info.expand(Purpose::kVerify, ranks,
                                               Known(info, overrides)));
  }
  return Spread(instances, kMostInstances);
}

StatusOr<std::vector<Instance>> MutantInstances(
    const CaseInfo& info, const ErasedVariant& mutant, int ranks,
    const AxisOverrides& overrides) {
  SP_ASSIGN_OR_RETURN(
      std::vector<Instance> instances,
      info.expand(Purpose::kVerify, ranks, Known(info, overrides)));
  std::erase_if(instances,
                [&](const Instance& i) { return !mutant.applies(i); });
  return Spread(instances, 3);
}

Mutation::Mutation(const Options& options, std::unique_ptr<World> world)
    : seed_(options.seed), world_(std::move(world)) {
  watchdog_ = std::make_unique<Watchdog>(
      *world_, kGraceSeconds,
      [this](const std::vector<std::string>& whereabouts, bool hung) {
        fmt::print(stderr,
                   "\nshardproof: a run does not return even when its waits "
                   "are ended:\n  {}\n",
                   fmt::join(whereabouts, "\n  "));
        world_->Terminate(hung ? kExitHang : kExitInterrupted);
      });
}

StatusOr<std::unique_ptr<Mutation>> Mutation::Create(const Options& options) {
  if (!options.backend.empty() && options.backend != "thread") {
    return Unsupported(
        "mutants runs on the thread backend: a hang would cost the job of "
        "processes; `shardproof verify --backend {} --fault NAME` plants one "
        "fault there",
        options.backend);
  }
  if (options.memory != "shared") {
    return Unsupported(
        "mutants runs in shared memory: with --memory ordinary what is stored "
        "is copied on before a fault can change it");
  }
  SP_ASSIGN_OR_RETURN(std::unique_ptr<World> world, CreateWorld("thread"));
  return std::unique_ptr<Mutation>(new Mutation(options, std::move(world)));
}

Record Mutation::Run(const CaseInfo& info, const ErasedVariant& variant,
                     const Instance& instance, const RunOptions& run,
                     double seconds) {
  SetUnderWay(
      fmt::format("{} {} {}", info.name, variant.name, run.repro_prefix));
  watchdog_->Arm(seconds);
  Record record = RunOnWorld(*world_, info, variant, instance, run);
  const Watchdog::Outcome outcome = watchdog_->Disarm();
  SetUnderWay("");
  if (outcome.hung) {
    record.verdict = Verdict::kFailed;
    record.reason =
        fmt::format("hung: {}", fmt::join(outcome.whereabouts, "; "));
  }
  return record;
}

MutationResult Mutation::Baseline(const CaseInfo& info,
                                  const ErasedVariant& variant,
                                  std::vector<Instance>& instances) {
  RunOptions run{.seed = seed_};
  MutationResult result{
      .kind = Kind::kNotApplicable, .reason = "no instance", .repro = {}};
  std::vector<Instance> good;
  slowest_ = 0;
  for (const Instance& instance : instances) {
    const auto begin = std::chrono::steady_clock::now();
    const Record record = Run(info, variant, instance, run, kSeconds);
    const std::chrono::duration<double> took =
        std::chrono::steady_clock::now() - begin;
    slowest_ = std::max(slowest_, took.count());
    if (Failed(record)) return {Kind::kBroken, record.reason, record.repro};
    if (record.verdict == Verdict::kPassed) {
      good.push_back(instance);
    } else {
      result.reason = record.reason;
    }
  }
  instances = std::move(good);
  if (!instances.empty()) result.kind = Kind::kHarmless;
  return result;
}

MutationResult Mutation::Plant(Fault fault, const CaseInfo& info,
                               const ErasedVariant& variant,
                               const std::vector<Instance>& instances) {
  MutationResult result{
      .kind = Kind::kNotApplicable, .reason = NeverStruck(fault), .repro = {}};
  for (const Instance& instance : instances) {
    for (int turn = 0; turn < instance.ranks; ++turn) {
      if (Interrupted()) return result;
      std::atomic<int> struck{0};
      RunOptions run;
      run.seed = seed_ + static_cast<uint64_t>(turn);
      run.grace_seconds = kHangSeconds;
      run.repro_prefix =
          fmt::format("shardproof verify --fault {}", Name(fault));
      run.interceptor = [&](int rank, int ranks) {
        return MakeFault(fault, rank, ranks, run.seed, &struck,
                         [this] { return watchdog_->Ended(); });
      };
      Record record =
          Run(info, variant, instance, run,
              HangIsExpected(fault) ? kHangSeconds + 4 * slowest_ : kSeconds);
      if (HangIsExpected(fault) && struck == 0 && Failed(record)) {
        // Slow, perhaps: another seed has a reference of its own.
        record = Run(info, variant, instance, run, kSeconds);
      }
      const std::string repro = ReproLine(info, variant, instance, run);
      if (struck == 0) {
        if (Failed(record)) return {Kind::kBroken, record.reason, repro};
        continue;
      }
      if (Failed(record) != MustBeNoticed(fault)) {
        return {Kind::kSurvived, Failed(record) ? record.reason : "not noticed",
                repro};
      }
      result = {MustBeNoticed(fault) ? Kind::kKilled : Kind::kHarmless,
                record.reason,
                {}};
      break;
    }
    // Each run costs its deadline.
    if (HangIsExpected(fault) && result.kind == Kind::kKilled) break;
  }
  return result;
}

MutationResult Mutation::RunMutant(const CaseInfo& info,
                                   const ErasedVariant& mutant,
                                   const std::vector<Instance>& instances) {
  MutationResult result{
      .kind = Kind::kNotApplicable, .reason = "no instance", .repro = {}};
  RunOptions run{.seed = seed_};
  run.grace_seconds = kHangSeconds;
  for (const Instance& instance : instances) {
    if (Interrupted()) return result;
    const Record record = Run(info, mutant, instance, run, kSeconds);
    if (record.verdict == Verdict::kUnsupported) {
      result.reason = record.reason;
      continue;
    }
    if (!Failed(record)) {
      return {Kind::kSurvived, "not noticed",
              ReproLine(info, mutant, instance, run)};
    }
    result = {Kind::kKilled, record.reason, {}};
  }
  return result;
}

}  // namespace shardproof
