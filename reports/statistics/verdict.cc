#include "reports/statistics/verdict.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <limits>
#include <string_view>
#include <utility>

#include "reports/statistics/benjamini_hochberg.h"
#include "reports/statistics/equivalence.h"
#include "reports/statistics/hodges_lehmann.h"
#include "reports/statistics/order.h"
#include "reports/statistics/sign_flip.h"
#include "reports/statistics/students_t.h"
#include "reports/statistics/verdict_plan.h"

namespace shardproof {
namespace {

// What a case has come to.
enum class Stage { kInvalid, kTooFew, kScreened, kSuspect, kDecided };

// A case on its way to a verdict.
struct Trial {
  Stage stage = Stage::kInvalid;
  TTest test = {};  // Of the logarithms that decide.
  double for_adjustment = 1;
  double sd = 0;  // Of one pair, or of one launch of each side.
  int count = 0;  // Pairs that decide, or launches of the smaller side.
  int degrees_per_count = 1;
  int directions = 1;  // That p is taken for.
  double seconds_each = 0;
  std::string_view unit = "pairs";
};

bool IsTime(double us) { return std::isfinite(us) && us > 0; }

std::string BadTime(std::string_view arm, const std::vector<double>& times) {
  for (size_t i = 0; i < times.size(); ++i) {
    if (!IsTime(times[i])) {
      return fmt::format("launch {} of the {} took {} us, which is no time",
                         i + 1, arm, times[i]);
    }
  }
  return "";
}

// Why these launches are no measurements; empty where they are.
std::string Problem(const std::string& said, const std::vector<double>& base,
                    const std::vector<double>& cand) {
  if (!said.empty()) return said;
  if (base.empty()) return "there is no launch of the base";
  if (cand.empty()) return "there is no launch of the candidate";
  std::string problem = BadTime("base", base);
  if (problem.empty()) problem = BadTime("candidate", cand);
  return problem;
}

std::string PairProblem(const CaseLaunches& c) {
  for (const auto& [base, cand] : {std::pair(&c.screen_base, &c.screen_cand),
                                   std::pair(&c.fresh_base, &c.fresh_cand)}) {
    if (c.invalid.empty() && base->size() != cand->size()) {
      return fmt::format(
          "{} launches of the base and {} of the candidate are no pairs",
          base->size(), cand->size());
    }
  }
  std::string problem = Problem(c.invalid, c.screen_base, c.screen_cand);
  if (problem.empty() && !c.fresh_base.empty()) {
    problem = Problem("", c.fresh_base, c.fresh_cand);
  }
  return problem;
}

std::vector<double> Logarithms(const std::vector<double>& times) {
  std::vector<double> logs;
  for (const double us : times) logs.push_back(std::log(us));
  return logs;
}

std::vector<double> LogRatios(const std::vector<double>& base,
                              const std::vector<double>& cand) {
  std::vector<double> d;
  for (size_t i = 0; i < base.size(); ++i) {
    d.push_back(std::log(cand[i]) - std::log(base[i]));
  }
  return d;
}

// The standard deviation (winsorized) that gave this error of a mean.
double SpreadOf(double standard_error, size_t count, const Rules& rules) {
  return standard_error / ErrorPerSpread(static_cast<int>(count), rules.trim);
}

double PTowards(const TTest& test) {
  return test.mean < 0 ? test.p_less : test.p_greater;
}

bool Suspicious(const TTest& test, const Rules& rules) {
  const double effect = std::abs(test.mean);
  return effect > std::log1p(rules.screen_alone) ||
         (effect > std::log1p(rules.screen_effect) &&
          PTowards(test) < rules.screen_p);
}

// "5.2 percent slower"
std::string Towards(double effect) {
  return fmt::format("{:.3g} percent {}", 100 * std::abs(effect),
                     effect < 0 ? "faster" : "slower");
}

std::string Range(double low, double high) {
  return fmt::format("{:.3g} to {:.3g}", 100 * low, 100 * high);
}

std::string Duration(double seconds) {
  if (seconds < 120) return fmt::format("{:.0f} s", std::ceil(seconds));
  return fmt::format("{:.0f} minutes", std::ceil(seconds / 60));
}

void Advise(int more, const Trial& trial, Comparison& c) {
  c.more_pairs = more;
  c.reason +=
      fmt::format(": {} more {}", more,
                  more == 1 && trial.unit == "pairs" ? "pair" : trial.unit);
  if (trial.seconds_each > 0) {
    c.more_seconds = more * trial.seconds_each;
    c.reason += fmt::format(" (about {})", Duration(*c.more_seconds));
  }
  c.reason += " would decide, if the spread stays";
}

// The effect and what it was found with: everything but the verdict.
void Fill(const TTest& test, Comparison& c) {
  const ConfidenceInterval interval = TInterval(test, 0.95);
  c.effect = std::expm1(test.mean);
  c.interval_low = std::expm1(interval.low);
  c.interval_high = std::expm1(interval.high);
  c.p = PTowards(test);
}

// How many would decide, after what was found; `findings`: cases that are
// significant already, of `cases`.
void Inconclusive(const Trial& trial, const Rules& rules, int findings,
                  int cases, Comparison& c) {
  c.change = Change::kInconclusive;
  c.reason = fmt::format(
      "{} (95 percent interval {} percent) in {} {}", Towards(c.effect),
      Range(c.interval_low, c.interval_high), trial.count, trial.unit);
  if (trial.test.degrees <= 0) {
    c.reason += ": too few to tell";
    return;
  }
  const Plan plan{
      .mean = trial.test.mean,
      .sd = trial.sd,
      .degrees_per_count = trial.degrees_per_count,
      .taken = trial.count,
      .p_wanted = rules.alpha * (findings + 1) / cases / trial.directions,
      .margin = c.margin,
      .screened_only = trial.stage == Stage::kScreened};
  const std::optional<int> more = MoreToDecide(plan, rules);
  if (more.has_value()) {
    Advise(*more, trial, c);
  } else {
    c.reason += fmt::format(
        ": with this effect and spread no {} {} would decide (margin {:.3g} "
        "percent)",
        rules.most_pairs, trial.unit, 100 * c.margin);
  }
}

// The verdict, of a case that was measured enough for one.
void Decide(const Trial& trial, const Rules& rules, int findings, int cases,
            Comparison& c) {
  const double limit = std::log1p(c.margin);
  const bool significant =
      trial.stage == Stage::kDecided && c.adjusted_p < rules.alpha;
  const EquivalenceTest same = Equivalence(trial.test, rules.equivalence);
  if (significant && std::abs(trial.test.mean) > limit) {
    c.change = trial.test.mean > 0 ? Change::kRegressed : Change::kImproved;
    c.reason = fmt::format(
        "{} (95 percent interval {} percent) in {} {}, adjusted p {:.2g}; "
        "the margin is {:.3g} percent",
        Towards(c.effect), Range(c.interval_low, c.interval_high), trial.count,
        trial.unit, c.adjusted_p, 100 * c.margin);
  } else if (same.equivalent) {
    c.change = Change::kEquivalent;
    c.reason = fmt::format(
        "{}, within {:.3g} percent (90 percent interval {} percent) in {} {}",
        Towards(c.effect), 100 * rules.equivalence,
        Range(std::expm1(same.interval.low), std::expm1(same.interval.high)),
        trial.count, trial.unit);
  } else {
    Inconclusive(trial, rules, findings, cases, c);
  }
}

Comparison Start(const Comparison& identity) {
  Comparison c;
  c.key = identity.key;
  c.case_name = identity.case_name;
  c.variant = identity.variant;
  c.backend = identity.backend;
  c.params = identity.params;
  c.ranks = identity.ranks;
  c.repro = identity.repro;
  return c;
}

Trial Invalid(std::string problem, Comparison& c) {
  c.change = Change::kInvalid;
  c.reason = std::move(problem);
  return {};
}

void TooFew(std::string reason, int more, Trial& trial, Comparison& c) {
  c.change = Change::kInconclusive;
  c.reason = std::move(reason);
  Advise(more, trial, c);
}

// Everything of one paired case that does not depend on the others.
Trial Weigh(const CaseLaunches& in, const Rules& rules, double noise,
            Comparison& c) {
  c.base_launches = in.screen_base;
  c.cand_launches = in.screen_cand;
  c.base_launches.insert(c.base_launches.end(), in.fresh_base.begin(),
                         in.fresh_base.end());
  c.cand_launches.insert(c.cand_launches.end(), in.fresh_cand.begin(),
                         in.fresh_cand.end());
  std::string problem = PairProblem(in);
  if (!problem.empty()) return Invalid(std::move(problem), c);

  const std::vector<double> screened =
      LogRatios(in.screen_base, in.screen_cand);
  const TTest screening = OneSampleT(screened, rules.trim);
  const auto screen_count = static_cast<int>(screened.size());
  const auto fresh_count = static_cast<int>(in.fresh_base.size());
  c.suspect = Suspect(in, rules);
  const bool decided = c.suspect && fresh_count >= rules.fresh_pairs;

  const std::vector<double>& base = decided ? in.fresh_base : in.screen_base;
  const std::vector<double>& cand = decided ? in.fresh_cand : in.screen_cand;
  std::vector<double> d = LogRatios(base, cand);
  Trial trial;
  trial.test = OneSampleT(d, rules.trim);
  trial.count = static_cast<int>(d.size());
  trial.sd = SpreadOf(trial.test.standard_error, d.size(), rules);
  trial.seconds_each = in.seconds_per_pair;
  c.screened_pairs = screen_count;
  c.pairs = trial.count;
  c.base_us = Median(base);
  c.cand_us = Median(cand);
  c.margin = Margin(rules, noise, c.base_us);
  Fill(trial.test, c);
  c.hodges_lehmann = std::expm1(HodgesLehmann(d));
  if (trial.test.mean < 0) {
    for (double& value : d) value = -value;
  }
  c.sign_flip_p = SignFlip(d);

  if (screen_count < rules.screen_pairs) {
    trial.stage = Stage::kTooFew;
    TooFew(fmt::format("screened with {} of {} pairs", screen_count,
                       rules.screen_pairs),
           rules.screen_pairs - screen_count, trial, c);
  } else if (!c.suspect) {
    trial.stage = Stage::kScreened;
  } else if (!decided) {
    trial.stage = Stage::kSuspect;
    TooFew(fmt::format("{} in {} pairs of screening is suspect, and was "
                       "measured again in {} of {} fresh pairs",
                       Towards(c.effect), screen_count, fresh_count,
                       rules.fresh_pairs),
           rules.fresh_pairs - fresh_count, trial, c);
  } else {
    trial.stage = Stage::kDecided;
    const bool turned = (trial.test.mean < 0) != (screening.mean < 0);
    trial.for_adjustment = turned ? 1 : c.p;
  }
  return trial;
}

Trial Weigh(const UnpairedLaunches& in, const Rules& rules, double noise,
            Comparison& c) {
  c.base_launches = in.base;
  c.cand_launches = in.cand;
  std::string problem = Problem(in.invalid, in.base, in.cand);
  if (!problem.empty()) return Invalid(std::move(problem), c);

  const std::vector<double> x = Logarithms(in.base);
  const std::vector<double> y = Logarithms(in.cand);
  Trial trial;
  trial.unit = "launches of each side";
  trial.count = static_cast<int>(std::min(x.size(), y.size()));
  trial.degrees_per_count = 2;
  trial.directions = 2;
  trial.seconds_each = 2 * in.seconds_per_launch;
  trial.test = WelchT(x, y, rules.trim);
  const auto spread = [&](const std::vector<double>& v) {
    return SpreadOf(OneSampleT(v, rules.trim).standard_error, v.size(), rules);
  };
  trial.sd = std::hypot(spread(x), spread(y));
  c.base_us = Median(in.base);
  c.cand_us = Median(in.cand);
  c.margin = Margin(rules, noise, c.base_us);
  Fill(trial.test, c);
  c.hodges_lehmann = std::expm1(HodgesLehmannShift(x, y));
  // With one launch on a side the spread of launches is not known at all.
  const int least = std::max(2, rules.least_unpaired);
  if (trial.count < least) {
    trial.stage = Stage::kTooFew;
    TooFew(fmt::format("{} launches of the base and {} of the candidate, and "
                       "at least {} of each are needed, since launches differ "
                       "by more than their samples show",
                       x.size(), y.size(), least),
           least - trial.count, trial, c);
    return trial;
  }
  trial.stage = Stage::kDecided;
  trial.for_adjustment = std::min(1.0, trial.directions * c.p);
  return trial;
}

template <class Launches>
std::vector<Comparison> JudgeAll(std::span<const Launches> cases,
                                 const Rules& rules, double noise) {
  std::vector<Comparison> all;
  std::vector<Trial> trials;
  std::vector<double> p;
  for (const Launches& in : cases) {
    Comparison& c = all.emplace_back(Start(in.identity));
    trials.push_back(Weigh(in, rules, noise, c));
    if (trials.back().stage != Stage::kInvalid) {
      p.push_back(trials.back().for_adjustment);
    }
  }
  const std::vector<double> adjusted = BenjaminiHochberg(p);
  const auto findings = static_cast<int>(
      std::count_if(adjusted.begin(), adjusted.end(),
                    [&](double value) { return value < rules.alpha; }));
  size_t next = 0;
  for (size_t i = 0; i < all.size(); ++i) {
    const Stage stage = trials[i].stage;
    if (stage == Stage::kInvalid) continue;
    all[i].adjusted_p = adjusted[next++];
    if (stage == Stage::kScreened || stage == Stage::kDecided) {
      Decide(trials[i], rules, findings, static_cast<int>(p.size()), all[i]);
    }
  }
  return all;
}

}  // namespace

double Margin(const Rules& rules, double noise, double base_us) {
  if (!IsTime(base_us)) return std::numeric_limits<double>::quiet_NaN();
  return std::max({rules.least_margin, noise > 0 ? noise : 0.0,
                   rules.least_margin_us / base_us});
}

bool Suspect(const CaseLaunches& launches, const Rules& rules) {
  if (!PairProblem(launches).empty()) return false;
  const auto count = static_cast<int>(launches.screen_base.size());
  if (count < rules.screen_pairs) return false;
  const std::vector<double> d =
      LogRatios(launches.screen_base, launches.screen_cand);
  return Suspicious(OneSampleT(d, rules.trim), rules);
}

std::vector<Comparison> Judge(std::span<const CaseLaunches> cases,
                              const Rules& rules, double noise) {
  return JudgeAll(cases, rules, noise);
}

std::vector<Comparison> JudgeUnpaired(std::span<const UnpairedLaunches> cases,
                                      const Rules& rules, double noise) {
  return JudgeAll(cases, rules, noise);
}

}  // namespace shardproof
