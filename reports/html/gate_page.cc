// For who decides on a change: what the gate says and why.
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "reports/html/pages.h"
#include "reports/html/table.h"
#include "reports/key.h"

namespace shardproof::html {
namespace {

constexpr size_t kMostFindings = 500;
constexpr size_t kMostComparisons = 1000;
// A chart of more rows is no picture.
constexpr size_t kMostForestRows = 40;
constexpr size_t kMostMismatches = 4;

std::string FirstOf(size_t shown, size_t all) {
  return shown < all ? fmt::format("the first {} of {}", shown, all)
                     : std::string();
}

// What an exit code means (tools/cli/exit_code.h).
std::string_view Meaning(int exit_code) {
  switch (exit_code) {
    case 0:
      return "pass";
    case 1:
      return "a wrong result";
    case 2:
      return "wrong usage";
    case 3:
      return "a confirmed regression";
    case 4:
      return "not decided";
    case 5:
      return "an invalid measurement, or no baseline";
    case 6:
      return "the launcher, MPI, CUDA or NCCL failed";
    case 124:
      return "the watchdog ended it";
    default:
      return "unknown";
  }
}

void RecordBanner(Page page) {
  std::map<Verdict, size_t> counts;
  size_t all = 0;
  for (const Launch& l : page.report.launches) {
    for (const Record& r : l.records) {
      ++counts[r.verdict];
      ++all;
    }
  }
  if (all == 0) {
    Missing(page.w, "There are no records in this report. What measures:",
            "shardproof run");
    return;
  }
  const size_t bad = counts[Verdict::kIncorrect] + counts[Verdict::kFailed];
  const size_t doubtful = counts[Verdict::kSuspect];
  std::map<Change, size_t> changes;
  for (const Comparison& c : page.report.comparisons) ++changes[c.change];
  const size_t slower = changes[Change::kRegressed];
  page.w.Write("<div class=\"banner {}\"><p class=\"headline\">{}</p>\n<p>",
               bad > 0                      ? "bad"
               : doubtful > 0 || slower > 0 ? "warn"
                                            : "good",
               bad > 0        ? "\u2715 " + Counted(bad, "record") + " wrong"
               : doubtful > 0 ? "? " + Counted(doubtful, "record") + " suspect"
               : slower > 0   ? "Every answer that ran is right, and " +
                                  Counted(slower, "case") + " slower"
                            : "\u2713 Every answer that ran is right");
  std::vector<std::string> parts;
  for (const auto& [verdict, n] : counts) {
    if (n > 0) parts.push_back(fmt::format("{} {}", n, Name(verdict)));
  }
  for (const auto& [change, n] : changes) {
    if (n > 0) parts.push_back(fmt::format("{} {}", n, Name(change)));
  }
  page.w.Write("{}.</p></div>\n", fmt::format("{}", fmt::join(parts, ", ")));
  if (page.report.comparisons.empty()) {
    Missing(page.w, "Speed was not compared with anything. To compare:",
            "shardproof gate RESULT --baseline BASELINE");
  }
}

void Banner(Page page) {
  if (!page.report.gate.has_value()) return RecordBanner(page);
  const GateOutcome& gate = *page.report.gate;
  const std::string_view tone = gate.exit_code == 0   ? "good"
                                : gate.exit_code == 4 ? "warn"
                                                      : "bad";
  page.w.Write(
      "<div class=\"banner {}\"><p class=\"headline\"><span "
      "aria-hidden=\"true\">{} </span>{}</p>\n<p>Exit code "
      "<strong>{}</strong>: "
      "{}.</p>\n",
      tone,
      tone == "good"   ? "\u2713"
      : tone == "warn" ? "?"
                       : "\u2715",
      gate.headline, gate.exit_code, Meaning(gate.exit_code));
  if (!gate.notes.empty()) {
    page.w.Write("<ul>\n");
    for (const std::string& note : gate.notes) {
      page.w.Write("<li>{}</li>\n", note);
    }
    page.w.Write("</ul>\n");
  }
  page.w.Write("</div>\n");
}

void AddFinding(Page page, Table& table, const GateOutcome::Finding& f) {
  const Comparison* c = FindComparison(page.report, f.key);
  std::vector<Cell> cells = {Badge(f.kind), f.key};
  if (c != nullptr) {
    cells.insert(cells.end(),
                 {c->effect, Range{c->interval_low, c->interval_high}});
  } else {
    cells.resize(4);
  }
  cells.emplace_back(f.reason);
  if (f.quarantined) {
    cells.emplace_back(f.quarantine);
  } else {
    cells.emplace_back(f.repro);
  }
  table.Add(std::move(cells));
}

void Findings(Page page, bool quarantined) {
  const auto& findings = page.report.gate->findings;
  Table table(quarantined ? "In quarantine: seen, and not counted" : "Findings",
              {{"what"},
               {"key", Column::kKey},
               {"effect", Column::kShare},
               {"95 % interval", Column::kShare},
               {"why", Column::kProse},
               quarantined ? Column{"quarantine", Column::kProse}
                           : Column{"measure it again", Column::kCode}});
  size_t all = 0;
  for (const auto& f : findings) {
    if (f.quarantined != quarantined) continue;
    if (++all <= kMostFindings) AddFinding(page, table, f);
  }
  table.Note(FirstOf(kMostFindings, all));
  table.Write(page.w);
  if (all == 0 && !quarantined) page.w.Write("<p>No findings.</p>\n");
}

std::string MismatchText(const Record::Mismatch& m) {
  std::string index;
  for (const int64_t i : m.index) {
    index += fmt::format("{}{}", index.empty() ? "" : ", ", i);
  }
  return fmt::format("{}[{}] on rank {}: {} instead of {}", m.tensor, index,
                     m.rank, Significant(m.got), Significant(m.expected));
}

void WrongRecords(Page page) {
  Table table("Wrong, failed or suspect",
              {{"verdict"},
               {"key", Column::kKey},
               {"error over bound", Column::kNumber},
               {"what was seen", Column::kProse},
               {"run it again", Column::kCode}});
  size_t all = 0;
  for (const Launch& launch : page.report.launches) {
    for (const Record& r : launch.records) {
      if (r.verdict != Verdict::kIncorrect && r.verdict != Verdict::kFailed &&
          r.verdict != Verdict::kSuspect) {
        continue;
      }
      if (++all > kMostFindings) continue;
      Writer seen;
      seen.Write("{}", r.reason);
      Cell ratio;
      if (r.error.has_value()) {
        ratio = r.error->worst_ratio;
        if (!r.error->diagnosis.empty()) {
          seen.Write("<br>{}", r.error->diagnosis);
        }
        for (size_t i = 0;
             i < std::min(kMostMismatches, r.error->mismatches.size()); ++i) {
          seen.Write("<br><span class=\"note\">{}</span>",
                     MismatchText(r.error->mismatches[i]));
        }
      }
      table.Add(
          {Badge(Name(r.verdict)), KeyOf(r), ratio, seen.Take(), r.repro});
    }
  }
  table.Note(FirstOf(kMostFindings, all));
  table.Write(page.w);
}

// Those that matter first.
std::vector<const Comparison*> Ordered(const Report& report) {
  std::vector<const Comparison*> all;
  for (const Comparison& c : report.comparisons) all.push_back(&c);
  const auto rank = [](Change change) {
    switch (change) {
      case Change::kRegressed:
        return 0;
      case Change::kInvalid:
        return 1;
      case Change::kInconclusive:
        return 2;
      case Change::kImproved:
        return 3;
      case Change::kEquivalent:
        break;
    }
    return 4;
  };
  std::stable_sort(all.begin(), all.end(), [&](const auto* a, const auto* b) {
    if (rank(a->change) != rank(b->change)) {
      return rank(a->change) < rank(b->change);
    }
    const auto size = [](const Comparison* c) {
      return std::isfinite(c->effect) ? std::abs(c->effect) : 0;
    };
    return size(a) > size(b);
  });
  return all;
}

Chart Forest(const std::vector<const Comparison*>& comparisons) {
  Chart chart{.title = "Effects",
              .x = {.label = "effect: more is slower", .kind = "share"},
              .y = {.label = "", .kind = "whole"},
              .sideways = true};
  constexpr auto kOrder =
      std::to_array<std::pair<Change, int>>({{Change::kRegressed, 1},
                                             {Change::kImproved, 2},
                                             {Change::kEquivalent, 0},
                                             {Change::kInconclusive, 3},
                                             {Change::kInvalid, 4}});
  for (const auto& [change, color] : kOrder) {
    chart.series.push_back(
        {.name = std::string(Name(change)), .whiskers = true, .color = color});
  }
  double margin = 0;
  for (const Comparison* c : comparisons) {
    if (chart.y.names.size() >= kMostForestRows) break;
    if (!std::isfinite(c->effect)) continue;
    const auto row = static_cast<double>(chart.y.names.size());
    chart.y.names.push_back(c->key);
    for (size_t i = 0; i < chart.series.size(); ++i) {
      if (kOrder.at(i).first != c->change) continue;
      chart.series[i].points.push_back({.x = c->effect,
                                        .y = row,
                                        .low = c->interval_low,
                                        .high = c->interval_high,
                                        .name = c->key});
    }
    if (std::isfinite(c->margin)) margin = std::max(margin, c->margin);
  }
  std::erase_if(chart.series, [](const auto& s) { return s.points.empty(); });
  // Margins differ by case (0.5 µs is more of a short one): the widest.
  if (margin > 0) chart.bands.push_back({-margin, margin});
  return chart;
}

void InconclusiveBox(Page page) {
  size_t n = 0;
  int pairs = 0;
  double seconds = 0;
  bool known = false;
  for (const Comparison& c : page.report.comparisons) {
    if (c.change != Change::kInconclusive) continue;
    ++n;
    pairs = std::max(pairs, c.more_pairs.value_or(0));
    if (c.more_seconds.has_value() && std::isfinite(*c.more_seconds)) {
      seconds += *c.more_seconds;
      known = true;
    }
  }
  if (n == 0) return;
  page.w.Write("<aside class=\"box\"><p>{} not decided.", Counted(n, "case"));
  if (pairs > 0) {
    page.w.Write(" At most {} more {} of launches would decide", pairs,
                 pairs == 1 ? "pair" : "pairs");
    if (known) page.w.Write(", in about {} minutes", Significant(seconds / 60));
    page.w.Write(".");
  }
  page.w.Write("</p></aside>\n");
}

void Comparisons(Page page) {
  if (page.report.comparisons.empty()) return;
  page.w.Write("<h3>Base against candidate</h3>\n");
  InconclusiveBox(page);
  const auto ordered = Ordered(page.report);
  page.charts.Figure(
      page.w,
      "Effect of each case with its 95 % interval; inside the shaded margin it "
      "is of no interest",
      "forest", {Forest(ordered)});
  Table table("Comparisons",
              {{"key", Column::kKey},
               {"change"},
               {"base", Column::kTime},
               {"candidate", Column::kTime},
               {"effect", Column::kShare},
               {"95 % interval", Column::kShare},
               {"Hodges-Lehmann", Column::kShare},
               {"margin", Column::kPortion},
               {"adjusted p", Column::kNumber},
               {"sign-flip p", Column::kNumber},
               {"pairs", Column::kWhole},
               {"why", Column::kProse},
               {"measure it again", Column::kCode}},
              Table::kFilterable);
  for (const Comparison* c : ordered) {
    if (table.rows() >= kMostComparisons) break;
    table.Add({c->key, Badge(Name(c->change)), c->base_us, c->cand_us,
               c->effect, Range{c->interval_low, c->interval_high},
               c->hodges_lehmann, c->margin, c->adjusted_p, c->sign_flip_p,
               static_cast<double>(c->pairs), c->reason, c->repro});
  }
  table.Note(FirstOf(kMostComparisons, ordered.size()));
  table.Write(page.w);
}

void CalibrationSection(Page page) {
  page.w.Write("<h3>What this gate can see</h3>\n");
  if (!page.report.calibration.has_value()) {
    Missing(page.w,
            "How often the gate is wrong on this machine has not been "
            "measured. To measure it:",
            "shardproof calibrate");
    return;
  }
  const Calibration& c = *page.report.calibration;
  std::string sentence = Sentence(c);
  page.w.Write("<p class=\"calibration\">{}.</p>\n", sentence);
  Table table("Injected slow-downs",
              {{"slow-down", Column::kPortion},
               {"trials", Column::kWhole},
               {"found", Column::kWhole},
               {"found at least, 95 %", Column::kPortion},
               {"median effect", Column::kShare}});
  for (const Calibration::Power& p : c.power) {
    table.Add({p.slowdown, static_cast<double>(p.trials),
               static_cast<double>(p.found), p.found_low, p.median_effect});
  }
  table.Note(c.measured.empty() ? "" : "measured " + c.measured);
  table.Write(page.w);
}

}  // namespace

void GatePage(Page page) {
  Banner(page);
  if (page.report.gate.has_value()) {
    Findings(page, false);
    Findings(page, true);
  }
  WrongRecords(page);
  Comparisons(page);
  CalibrationSection(page);
  EnvironmentSection(page);
  LeftOutSection(page);
}

}  // namespace shardproof::html
