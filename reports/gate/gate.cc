#include "reports/gate/gate.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <map>
#include <set>
#include <string_view>
#include <utility>
#include <vector>

#include "reports/key.h"

namespace shardproof {
namespace {

using Finding = GateOutcome::Finding;

// In the order of precedence.
enum class Weight { kWrong, kHung, kFailed, kInvalid, kSlower, kUndecided };
constexpr std::array kExitCodes = {1, 124, 6, 5, 3, 4};
constexpr std::array<std::pair<std::string_view, std::string_view>, 6>
    kCounted = {{{"wrong result", "wrong results"},
                 {"hang", "hangs"},
                 {"failure", "failures"},
                 {"missing or invalid", "missing or invalid"},
                 {"slow-down", "slow-downs"},
                 {"inconclusive", "inconclusive"}}};

bool IsTime(double us) { return std::isfinite(us) && us > 0; }

// What the launches of one side say about one key.
struct KeyResult {
  bool passed = false, timed = false, bad = false;
  std::string absent = {};  // Why it did not run, if it did not.
};

class Evaluation {
 public:
  Evaluation(const Policy& policy, const GateInput& input)
      : policy_(policy),
        input_(input),
        quarantined_(policy.quarantine.size()) {}

  GateOutcome Run() {
    for (const Launch& launch : input_.candidate) JudgeLaunch(launch);
    if (passed_ == 0) {
      Add(Weight::kInvalid, "", "missing",
          input_.candidate.empty()
              ? "there is no result"
              : "no case passed, and nothing is not a pass");
    }
    JudgeRequired();
    JudgeMachines();
    if (input_.baseline.empty() && input_.comparisons.empty()) {
      Note("there is no baseline: only correctness was judged");
    }
    JudgeBaseline();
    if (one_machine_) JudgeComparisons();
    return Finish();
  }

 private:
  struct Weighed {
    Weight weight = Weight::kWrong;
    bool counts = true;
    int launches = 1;
    Finding finding = {};
  };

  void Note(std::string text) { notes_.push_back(std::move(text)); }

  void Add(Weight weight, const std::string& key, std::string_view kind,
           std::string reason, const std::string& repro = {},
           bool counts = true) {
    // The same in several launches is one finding.
    for (Weighed& known : weighed_) {
      if (known.weight == weight && known.finding.key == key &&
          known.finding.kind == kind && !key.empty()) {
        ++known.launches;
        return;
      }
    }
    Weighed added{.weight = weight,
                  .finding = {.key = key,
                              .kind = std::string(kind),
                              .reason = std::move(reason),
                              .repro = repro}};
    Quarantine(added.finding);
    added.counts = counts && !added.finding.quarantined;
    weighed_.push_back(std::move(added));
  }

  void Quarantine(Finding& finding) {
    if (finding.key.empty()) return;
    for (size_t i = 0; i < policy_.quarantine.size(); ++i) {
      const Policy::Quarantine& q = policy_.quarantine[i];
      if (!Applies(q) || !q.filter.Matches(finding.key)) continue;
      quarantined_[i] = true;
      finding.quarantined = true;
      finding.quarantine =
          fmt::format("{}: {}, until {}", q.owner, q.reason, q.expires);
      return;
    }
  }

  bool Applies(const Policy::Quarantine& q) const {
    const auto today = DayOf(input_.today);
    const auto expires = DayOf(q.expires);
    return today.has_value() && expires.has_value() && *today <= *expires &&
           *expires - *today <= std::chrono::days(kMostQuarantineDays);
  }

  void JudgeLaunch(const Launch& launch) {
    if (launch.interrupted || !launch.complete) {
      Add(Weight::kInvalid, "", "invalid",
          fmt::format("{} {}", launch.name,
                      launch.interrupted ? "was interrupted"
                                         : "is incomplete: it never ended"));
    }
    for (const std::string& what : launch.left_out) {
      Note(fmt::format("{} left out {}", launch.name, what));
    }
    for (const Record& record : launch.records) {
      const std::string key = KeyOf(record);
      if (policy_.Selects(key)) JudgeRecord(record, key);
    }
  }

  void JudgeRecord(const Record& r, const std::string& key) {
    KeyResult& result = candidate_[key];
    switch (r.verdict) {
      case Verdict::kPassed:
        if (r.time_us.has_value() && !IsTime(r.time_us->median)) {
          result.bad = true;
          Add(Weight::kInvalid, key, "invalid",
              fmt::format("its time is {} us, which is none",
                          r.time_us->median),
              r.repro);
          return;
        }
        ++passed_;
        result.passed = true;
        result.timed = result.timed || r.time_us.has_value();
        return;
      case Verdict::kIncorrect:
      case Verdict::kSuspect:
        result.bad = true;
        Add(Weight::kWrong, key, "incorrect",
            r.verdict == Verdict::kSuspect ? "suspect: " + r.reason : r.reason,
            r.repro);
        return;
      case Verdict::kFailed: {
        result.bad = true;
        const bool hung = r.reason.rfind("hung", 0) == 0;
        Add(hung ? Weight::kHung : Weight::kFailed, key, "failed", r.reason,
            r.repro);
        return;
      }
      case Verdict::kUnsupported:
      case Verdict::kNotBuilt:
        result.absent = fmt::format("{}: {}", Name(r.verdict), r.reason);
        return;
    }
  }

  void JudgeRequired() {
    for (const Pattern& required : policy_.required) {
      const bool there = std::any_of(
          candidate_.begin(), candidate_.end(), [&](const auto& result) {
            return result.second.passed && required.Matches(result.first);
          });
      if (there) continue;
      Add(Weight::kInvalid, "", "missing",
          fmt::format("nothing passed that matches \"{}\", which {} requires",
                      required.text(), policy_.name));
    }
  }

  // Every launch against the first one.
  void JudgeMachines() {
    const Launch* first = nullptr;
    std::set<std::string> epochs;
    for (const auto launches : {input_.baseline, input_.candidate}) {
      for (const Launch& launch : launches) {
        if (first == nullptr) first = &launch;
        JudgeMachine(*first, launch, epochs);
      }
    }
  }

  void JudgeMachine(const Launch& first, const Launch& launch,
                    std::set<std::string>& epochs) {
    if (MachineId(first.fingerprint) == MachineId(launch.fingerprint)) {
      const std::string change =
          EpochChange(first.fingerprint, launch.fingerprint);
      if (!change.empty() && epochs.insert(change).second) {
        Note(fmt::format("{} and {} differ: {}", first.name, launch.name,
                         change));
      }
      return;
    }
    std::string what;
    for (const Difference& d :
         Differences(first.fingerprint, launch.fingerprint)) {
      if (!d.machine) continue;
      what += fmt::format("{}{} {} and {}", what.empty() ? "" : ", ", d.field,
                          d.before.empty() ? "not known" : d.before,
                          d.after.empty() ? "not known" : d.after);
    }
    if (one_machine_) {
      Add(Weight::kInvalid, "", "invalid",
          fmt::format("{} and {} are of two machines ({}): times cannot be "
                      "compared",
                      first.name, launch.name, what));
    }
    one_machine_ = false;
  }

  void JudgeBaseline() {
    std::map<std::string, KeyResult> baseline;
    for (const Launch& launch : input_.baseline) {
      if (!launch.complete) {
        Note(fmt::format("{} of the baseline is incomplete", launch.name));
      }
      for (const Record& r : launch.records) {
        const std::string key = KeyOf(r);
        if (r.verdict != Verdict::kPassed || !policy_.Selects(key)) continue;
        KeyResult& result = baseline[key];
        result.passed = true;
        result.timed = result.timed ||
                       (r.time_us.has_value() && IsTime(r.time_us->median));
      }
    }
    if (!input_.baseline.empty() && baseline.empty()) {
      Add(Weight::kInvalid, "", "invalid",
          "the baseline has nothing that passed and is selected");
    }
    std::set<std::string> compared;
    for (const Comparison& comparison : input_.comparisons) {
      compared.insert(comparison.key);
    }
    for (const auto& [key, base] : baseline) {
      const auto it = candidate_.find(key);
      const KeyResult now = it == candidate_.end() ? KeyResult() : it->second;
      if (now.bad) continue;  // Said already.
      if (!now.passed) {
        Add(Weight::kInvalid, key, "missing",
            now.absent.empty()
                ? "it is in the baseline and has no result now"
                : fmt::format("it passed in the baseline and is {}",
                              now.absent));
      } else if (base.timed && !now.timed) {
        Add(Weight::kInvalid, key, "missing",
            "it was measured in the baseline and is not now");
      } else if (base.timed && one_machine_ && compared.count(key) == 0) {
        Add(Weight::kInvalid, key, "missing",
            "it was measured in both and not compared");
      }
    }
  }

  void JudgeComparisons() {
    for (const Comparison& c : input_.comparisons) {
      if (!policy_.Selects(c.key)) continue;
      ++compared_;
      if (c.change == Change::kInvalid || !std::isfinite(c.effect)) {
        Add(Weight::kInvalid, c.key, "invalid",
            c.change == Change::kInvalid ? c.reason
                                         : "its effect is not a number",
            c.repro);
      } else if (c.change == Change::kRegressed) {
        Add(Weight::kSlower, c.key, "regressed", c.reason, c.repro);
      } else if (c.change == Change::kInconclusive) {
        Add(Weight::kUndecided, c.key, "inconclusive", c.reason, c.repro,
            policy_.inconclusive_fails);
      }
    }
  }

  void NoteQuarantines() {
    for (size_t i = 0; i < policy_.quarantine.size(); ++i) {
      const Policy::Quarantine& q = policy_.quarantine[i];
      const std::string which =
          fmt::format("{}, line {}: the quarantine of \"{}\" ({})",
                      policy_.name, q.line, q.filter.text(), q.owner);
      const auto today = DayOf(input_.today);
      const auto expires = DayOf(q.expires);
      if (!today.has_value()) {
        Note(which + " does not apply: it is not known which day it is");
      } else if (expires.has_value() && *expires < *today) {
        Note(fmt::format("{} has expired on {}", which, q.expires));
      } else if (!Applies(q)) {
        Note(
            fmt::format("{} does not apply: it expires on {}, more than {} "
                        "days ahead",
                        which, q.expires, kMostQuarantineDays));
      } else if (!quarantined_[i]) {
        Note(which + " matches no finding: it can go");
      }
    }
  }

  GateOutcome Finish() {
    // Wrong results in quarantine on top, then what is worst.
    std::stable_sort(weighed_.begin(), weighed_.end(),
                     [](const Weighed& a, const Weighed& b) {
                       const auto place = [](const Weighed& w) {
                         const bool on_top = w.weight == Weight::kWrong &&
                                             w.finding.quarantined;
                         return on_top ? -1 : static_cast<int>(w.weight);
                       };
                       return place(a) < place(b);
                     });
    GateOutcome outcome;
    std::array<int, kExitCodes.size()> counts = {};
    int quarantined = 0, undecided = 0;
    for (Weighed& w : weighed_) {
      if (w.counts) {
        ++counts[static_cast<size_t>(w.weight)];
      } else if (w.finding.quarantined) {
        ++quarantined;
      } else {
        ++undecided;
      }
      if (w.launches > 1) {
        w.finding.reason += fmt::format(" (in {} of {} launches)", w.launches,
                                        input_.candidate.size());
      }
      outcome.findings.push_back(std::move(w.finding));
    }
    std::string what;
    for (size_t i = 0; i < counts.size(); ++i) {
      if (counts[i] == 0) continue;
      if (outcome.exit_code == 0) outcome.exit_code = kExitCodes[i];
      what +=
          fmt::format("{}{} {}", what.empty() ? "" : ", ", counts[i],
                      counts[i] == 1 ? kCounted[i].first : kCounted[i].second);
    }
    if (outcome.exit_code == 0) {
      what = fmt::format("{} result{} passed, {} compared", passed_,
                         passed_ == 1 ? "" : "s", compared_);
      if (undecided > 0) what += fmt::format(", {} inconclusive", undecided);
    }
    if (quarantined > 0) what += fmt::format(", {} in quarantine", quarantined);
    outcome.headline = fmt::format("{}: {}", Word(outcome.exit_code), what);
    NoteQuarantines();
    Note(fmt::format("judged by {}", policy_.name));
    outcome.notes = std::move(notes_);
    return outcome;
  }

  static std::string_view Word(int exit_code) {
    switch (exit_code) {
      case 0:
        return "PASSED";
      case 4:
        return "INCONCLUSIVE";
      case 5:
        return "INVALID";
      default:
        return "FAILED";
    }
  }

  const Policy& policy_;
  const GateInput& input_;
  std::vector<Weighed> weighed_;
  std::vector<std::string> notes_;
  std::vector<bool> quarantined_;  // Whether each entry was of use.
  std::map<std::string, KeyResult> candidate_;
  int passed_ = 0, compared_ = 0;
  bool one_machine_ = true;
};

}  // namespace

GateOutcome Evaluate(const Policy& policy, const GateInput& input) {
  return Evaluation(policy, input).Run();
}

}  // namespace shardproof
