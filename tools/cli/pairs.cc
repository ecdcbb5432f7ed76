#include "tools/cli/pairs.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <random>
#include <set>
#include <utility>

#include "reports/key.h"
#include "tools/cli/conditions.h"
#include "tools/cli/interrupt.h"

namespace shardproof {
namespace {

using Clock = std::chrono::steady_clock;

// A pair that was disturbed (Throttled in conditions.h) is taken again, so
// many times in all.
constexpr int kMostRepeats = 5;

struct Arm {
  // Of the last launch.
  std::map<std::string, Record> records = {};
  std::string disturbed = {};  // By what.
  std::map<std::string, Record> wrong = {};
  Fingerprint fingerprint = {};
  std::set<std::string> seen = {};
};

class Pairs {
 public:
  explicit Pairs(const PairedRun& run) : run_(run), random_(run.seed) {}

  StatusOr<PairedOutcome> Run() {
    SP_ASSIGN_OR_RETURN(folder_, TemporaryFolder::Create("shardproof-ab"));
    SP_RETURN_IF_ERROR(
        TakePairs(run_.rules.screen_pairs, "screening", nullptr));
    std::set<std::string> suspects;
    for (const auto& [key, one] : cases_) {
      if (one.invalid.empty() && Suspect(one, run_.rules)) suspects.insert(key);
    }
    if (!suspects.empty() && !interrupted_) {
      SP_RETURN_IF_ERROR(
          TakePairs(run_.rules.fresh_pairs, "deciding", &suspects));
    }
    return Outcome();
  }

 private:
  double Elapsed() const {
    return std::chrono::duration<double>(Clock::now() - start_).count();
  }

  // `count` pairs of what `keys` names (null: of everything), into screening or
  // fresh launches. Stops early when the budget is spent.
  Status TakePairs(int count, const std::string& stage,
                   const std::set<std::string>* keys) {
    const Plan base_plan = PlanFor(run_.base, keys);
    const Plan cand_plan = PlanFor(run_.cand, keys);
    double longest = 0;
    for (int pair = 0, repeats = 0; pair < count;) {
      if (run_.time_budget > 0 && longest > 0 &&
          Elapsed() + longest > run_.time_budget) {
        out_of_time_ = true;
        notes_.push_back(fmt::format("{}: {} of {} pairs, the time was up",
                                     stage, pair, count));
        return OkStatus();
      }
      const double before = Elapsed();
      const bool base_first = (random_() & 1U) == 0;
      LaunchRequest base = run_.base, cand = run_.cand;
      if (keys != nullptr || base.plan != nullptr) base.plan = &base_plan;
      if (keys != nullptr || cand.plan != nullptr) cand.plan = &cand_plan;
      const auto progress = [&](int launch) {
        if (run_.progress) run_.progress(stage, 2 * pair + launch, 2 * count);
      };
      const Status launched = LaunchBoth(base, cand, base_first, progress);
      if (!launched.ok() && Interrupted()) {
        interrupted_ = true;
        notes_.push_back(
            fmt::format("{}: {} of {} pairs, interrupted", stage, pair, count));
        return OkStatus();
      }
      SP_RETURN_IF_ERROR(launched);
      const std::string disturbed =
          !cand_.disturbed.empty() ? cand_.disturbed : base_.disturbed;
      if (!disturbed.empty() && repeats < kMostRepeats) {
        ++repeats;
        notes_.push_back(
            fmt::format("{}: a pair was taken again: {}", stage, disturbed));
        continue;
      }
      Keep(keys != nullptr, Elapsed() - before, disturbed);
      longest = std::max(longest, Elapsed() - before);
      ++pair;
    }
    return OkStatus();
  }

  // Of `keys`, each slowed as the arm's own plan says.
  static Plan PlanFor(const LaunchRequest& request,
                      const std::set<std::string>* keys) {
    if (keys == nullptr) {
      return request.plan != nullptr ? *request.plan : Plan();
    }
    Plan plan;
    for (const std::string& key : *keys) {
      plan[key] = request.plan != nullptr && request.plan->contains(key)
                      ? request.plan->at(key)
                      : 0.0;
    }
    return plan;
  }

  Status LaunchBoth(const LaunchRequest& base, const LaunchRequest& cand,
                    bool base_first, const std::function<void(int)>& progress) {
    const LaunchRequest& first = base_first ? base : cand;
    const LaunchRequest& second = base_first ? cand : base;
    Arm& first_arm = base_first ? base_ : cand_;
    Arm& second_arm = base_first ? cand_ : base_;
    progress(0);
    if (run_.turn_seconds > 0 && CanTakeTurns(base) && CanTakeTurns(cand)) {
      SP_ASSIGN_OR_RETURN(
          auto both,
          RunInTurns(first, second, run_.turn_seconds, folder_.path()));
      Take(std::move(both.first), first_arm);
      Take(std::move(both.second), second_arm);
      return OkStatus();
    }
    SP_ASSIGN_OR_RETURN(Launched one, RunLaunch(first, folder_.path()));
    Take(std::move(one), first_arm);
    progress(1);
    SP_ASSIGN_OR_RETURN(Launched other, RunLaunch(second, folder_.path()));
    Take(std::move(other), second_arm);
    return OkStatus();
  }

  static void Take(Launched launched, Arm& arm) {
    arm.records.clear();
    arm.fingerprint = launched.launch.fingerprint;
    for (Record& record : launched.launch.records) {
      const std::string key = KeyOf(record);
      if (record.verdict == Verdict::kUnsupported) continue;
      arm.seen.insert(key);
      if (record.verdict == Verdict::kPassed && record.time_us.has_value()) {
        arm.records.insert_or_assign(key, std::move(record));
      } else {
        arm.wrong.insert_or_assign(key, std::move(record));
      }
    }
    arm.disturbed = Throttled(launched.launch.before, launched.launch.after);
  }

  // What both launches of the pair have.
  void Keep(bool fresh, double seconds, const std::string& disturbed) {
    const double each = seconds / static_cast<double>(std::max<size_t>(
                                      base_.records.size(), 1));
    for (const auto& [key, base] : base_.records) {
      const auto cand = cand_.records.find(key);
      if (cand == cand_.records.end()) continue;
      CaseLaunches& one = cases_[key];
      if (one.identity.key.empty()) one.identity = IdentityOf(base);
      one.seconds_per_pair = each;
      auto& bases = fresh ? one.fresh_base : one.screen_base;
      auto& cands = fresh ? one.fresh_cand : one.screen_cand;
      bases.push_back(base.time_us->median);
      cands.push_back(cand->second.time_us->median);
      if (cands.size() == 1) shown_.insert_or_assign(key, cand->second);
      if (!disturbed.empty()) one.invalid = disturbed;
    }
  }

  // What only one arm has, or got wrong, is invalid and says so.
  void AddUnpaired() {
    const auto add = [&](const Arm& mine, const Arm& other,
                         std::string_view name, std::string_view other_name) {
      for (const std::string& key : mine.seen) {
        CaseLaunches& one = cases_[key];
        const auto wrong = mine.wrong.find(key);
        if (wrong != mine.wrong.end()) {
          if (one.identity.key.empty()) {
            one.identity = IdentityOf(wrong->second);
          }
          one.invalid =
              fmt::format("{} in the {}: {}", Name(wrong->second.verdict), name,
                          wrong->second.reason);
        } else if (!other.seen.contains(key)) {
          const auto record = mine.records.find(key);
          if (one.identity.key.empty() && record != mine.records.end()) {
            one.identity = IdentityOf(record->second);
          }
          one.identity.key = key;
          one.invalid =
              fmt::format("in the {} only, not in the {}", name, other_name);
        }
      }
    };
    add(cand_, base_, "candidate", "base");
    add(base_, cand_, "base", "candidate");
  }

  PairedOutcome Outcome() {
    AddUnpaired();
    std::vector<CaseLaunches> all;
    for (auto& [key, one] : cases_) all.push_back(std::move(one));
    PairedOutcome out;
    out.comparisons = Judge(all, run_.rules, run_.noise);
    out.base = base_.fingerprint;
    out.cand = cand_.fingerprint;
    for (const auto& [key, record] : cand_.wrong) {
      out.wrong.push_back(record);
      shown_.insert_or_assign(key, record);
    }
    for (auto& [key, record] : shown_) out.records.push_back(std::move(record));
    for (const auto& [key, record] : base_.wrong) {
      out.wrong_base.push_back(record);
    }
    out.notes = std::move(notes_);
    out.seconds = Elapsed();
    out.out_of_time = out_of_time_;
    out.interrupted = interrupted_;
    return out;
  }

  const PairedRun& run_;
  std::mt19937_64 random_;
  Clock::time_point start_ = Clock::now();
  TemporaryFolder folder_;
  Arm base_, cand_;
  std::map<std::string, CaseLaunches> cases_;
  std::vector<std::string> notes_;
  std::map<std::string, Record> shown_;
  bool out_of_time_ = false, interrupted_ = false;
};

}  // namespace

Comparison IdentityOf(const Record& record) {
  Comparison c;
  c.key = KeyOf(record);
  c.case_name = record.case_name;
  c.variant = record.variant;
  c.backend = record.backend;
  c.params = ParamsText(record);
  c.ranks = record.ranks;
  c.repro = fmt::format(
      "shardproof bench --backend {} --ranks {} --filter '^{}$' --variant '{}'",
      record.backend, record.ranks, record.case_name, record.variant);
  for (const auto& [axis, value] : record.params) {
    c.repro += fmt::format(" --axis {}={}", axis, value);
  }
  if (record.memory != "shared") c.repro += " --memory " + record.memory;
  return c;
}

StatusOr<PairedOutcome> RunPairs(const PairedRun& run) {
  return Pairs(run).Run();
}

}  // namespace shardproof
