#include "tools/cli/comparison_table.h"

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstdio>
#include <vector>

#include "reports/fingerprint.h"
#include "reports/store/store.h"
#include "tools/cli/environment.h"
#include "tools/cli/table.h"

namespace shardproof {
namespace {

// The worst first.
constexpr std::array kOrder = {Change::kInvalid, Change::kRegressed,
                               Change::kInconclusive, Change::kImproved,
                               Change::kEquivalent};

size_t PlaceOf(Change change) {
  return static_cast<size_t>(std::find(kOrder.begin(), kOrder.end(), change) -
                             kOrder.begin());
}

}  // namespace

std::string ShareText(double share) {
  return fmt::format("{:+.1f} %", share * 100);
}

std::string ComparisonTable(std::span<const Comparison> comparisons) {
  std::vector<Comparison> sorted(comparisons.begin(), comparisons.end());
  std::stable_sort(sorted.begin(), sorted.end(),
                   [](const Comparison& a, const Comparison& b) {
                     const size_t x = PlaceOf(a.change), y = PlaceOf(b.change);
                     return x != y ? x < y : a.effect > b.effect;
                   });
  Table table({"case", "variant", "ranks", "parameters", "base", "candidate",
               "effect", "95 percent", "adjusted p", "pairs", "verdict"});
  for (const Comparison& c : sorted) {
    const bool valid = c.change != Change::kInvalid;
    table.Add({c.case_name, c.variant, std::to_string(c.ranks), c.params,
               valid ? TimeText(c.base_us) : "-",
               valid ? TimeText(c.cand_us) : "-",
               valid ? ShareText(c.effect) : "-",
               valid ? fmt::format("{} to {}", ShareText(c.interval_low),
                                   ShareText(c.interval_high))
                     : "-",
               valid ? fmt::format("{:.3g}", c.adjusted_p) : "-",
               std::to_string(c.pairs), std::string(Name(c.change))});
  }
  std::string text = comparisons.empty() ? "" : table.Text() + "\n";
  std::vector<std::string> counts;
  for (const Change change : kOrder) {
    const auto n =
        std::count_if(sorted.begin(), sorted.end(),
                      [&](const Comparison& c) { return c.change == change; });
    if (n > 0) counts.push_back(fmt::format("{} {}", n, Name(change)));
  }
  text += counts.empty() ? "nothing was compared\n"
                         : fmt::format("{}\n", fmt::join(counts, ", "));
  for (const Comparison& c : sorted) {
    if (c.change == Change::kEquivalent) continue;
    text += fmt::format("{} {} {}: {}\n", c.case_name, c.variant, c.params,
                        c.reason);
  }
  return text;
}

std::string CalibrationTable(const Calibration& c) {
  Table table({"slow-down", "trials", "found", "at least (95 %)",
               "median effect seen"});
  table.Add({"none", std::to_string(c.null_verdicts),
             fmt::format("{} false alarms", c.false_alarms),
             fmt::format("at most {:.1f} %", c.false_alarms_high * 100),
             fmt::format("{:.1f} % at the 95th percentile", c.noise * 100)});
  for (const Calibration::Power& p : c.power) {
    table.Add({fmt::format("{:.3g} %", p.slowdown * 100),
               std::to_string(p.trials), std::to_string(p.found),
               fmt::format("{:.1f} %", p.found_low * 100),
               ShareText(p.median_effect)});
  }
  return table.Text();
}

std::string CalibrationSentence(const std::optional<Calibration>& calibration) {
  if (calibration.has_value()) return Sentence(*calibration);
  return "how often the gate is wrong on this machine is not known: "
         "`shardproof calibrate` measures it";
}

std::optional<Calibration> CalibrationHere(const std::string& path) {
  auto store = Store::Open(path.empty() ? Store::DefaultPath() : path,
                           StoreMode::kReadOnly);
  if (!store.ok()) return std::nullopt;
  const auto found = store->LatestCalibration(MachineId(CollectFingerprint()));
  return found.ok() ? *found : std::nullopt;
}

void ShowLaunches(const std::string& stage, int done, int all) {
  if (isatty(STDERR_FILENO) == 0) return;
  fmt::print(stderr, "\r\033[K{}: {} of {} launches", stage, done, all);
  std::fflush(stderr);
}

void ClearLaunches() {
  if (isatty(STDERR_FILENO) != 0) fmt::print(stderr, "\r\033[K");
}

}  // namespace shardproof
