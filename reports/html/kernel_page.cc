// For who writes the kernels: what changed when, where the slow ones are, and
// how far from the floor everything is.
#include <algorithm>
#include <cmath>
#include <utility>

#include "reports/html/pages.h"
#include "reports/html/table.h"

namespace shardproof::html {
namespace {

constexpr size_t kMostHistories = 60;
constexpr size_t kMostPoints = 300;
constexpr size_t kMostRecords = 4000;
constexpr size_t kMostRatios = 20;

size_t FirstPoint(const History& h) {
  return h.points.size() > kMostPoints ? h.points.size() - kMostPoints : 0;
}

// The strip of times, and beside it that of error over bound.
std::pair<Chart, Chart> Strips(const History& h) {
  Chart time{.title = h.key,
             .x = {.label = "runs, the latest on the right", .kind = "whole"},
             .y = {.label = "median", .kind = "time"}};
  Chart::Series passed{.name = "median of a launch", .line = true, .color = 0};
  Chart::Series wrong{.name = "wrong or failed", .color = 1};
  Chart::Series ratio{.name = "error over bound", .line = true, .color = 3};
  const size_t first = FirstPoint(h);
  for (size_t i = first; i < h.points.size(); ++i) {
    const History::Point& p = h.points[i];
    const auto x = static_cast<double>(i - first);
    const std::string& name = p.label.empty() ? p.started : p.label;
    time.x.names.push_back(name);
    (p.passed ? passed : wrong)
        .points.push_back(
            {.x = x, .y = p.median_us, .name = name + " " + p.started});
    ratio.points.push_back({.x = x, .y = p.worst_ratio, .name = name});
  }
  time.series = {passed};
  if (!wrong.points.empty()) time.series.push_back(wrong);
  const auto mark = [&](size_t at, std::string label, bool strong) {
    if (at < first || at >= h.points.size()) return;
    time.marks.push_back({.x = static_cast<double>(at - first) - 0.5,
                          .label = std::move(label),
                          .strong = strong});
  };
  for (const History::Epoch& e : h.epochs) mark(e.first, e.label, false);
  for (const History::ChangePoint& c : h.changes) {
    mark(c.first, Percent(c.effect) + " %", true);
  }
  Chart drift{.title = h.key,
              .x = time.x,
              .y = {.label = "error over bound", .kind = "number"},
              .series = {ratio},
              .marks = time.marks};
  return {std::move(time), std::move(drift)};
}

void HistoryTable(Page page, const std::vector<const History*>& histories) {
  Table table("Histories", {{"key", Column::kKey},
                            {"runs", Column::kWhole},
                            {"first", Column::kTime},
                            {"last", Column::kTime},
                            {"best", Column::kTime},
                            {"last against best", Column::kShare},
                            {"change points", Column::kProse},
                            {"epochs", Column::kProse},
                            {"error over bound, last", Column::kNumber}});
  for (const History* h : histories) {
    if (h->points.empty()) continue;
    double best = INFINITY;
    for (const auto& p : h->points) {
      if (p.passed && p.median_us < best) best = p.median_us;
    }
    const auto name = [&](size_t at) {
      if (at >= h->points.size()) return fmt::format("run {}", at);
      const auto& p = h->points[at];
      return p.label.empty() ? p.started : p.label;
    };
    std::string changes, epochs;
    for (const auto& c : h->changes) {
      changes +=
          fmt::format("{}{} % at {} (p = {})", changes.empty() ? "" : "; ",
                      Percent(c.effect), name(c.first), Significant(c.p));
    }
    for (const auto& e : h->epochs) {
      epochs += fmt::format("{}{} at {}", epochs.empty() ? "" : "; ", e.label,
                            name(e.first));
    }
    table.Add({h->key, static_cast<double>(h->points.size()),
               h->points.front().median_us, h->points.back().median_us, best,
               h->points.back().median_us / best - 1, changes, epochs,
               h->points.back().worst_ratio});
  }
  table.Write(page.w);
}

void RatioTable(Page page, std::vector<Measured> measured) {
  std::erase_if(measured, [](const Measured& m) {
    return !m.shown->error.has_value() ||
           !(m.shown->error->worst_ratio > 0);  // NaN too.
  });
  std::stable_sort(measured.begin(), measured.end(),
                   [](const Measured& a, const Measured& b) {
                     return a.shown->error->worst_ratio >
                            b.shown->error->worst_ratio;
                   });
  Table table("Closest to the bound on the error, with their speed",
              {{"key", Column::kKey},
               {"error over bound", Column::kNumber},
               {"largest error", Column::kNumber},
               {"in ulp", Column::kNumber},
               {"median", Column::kTime},
               {"verdict"}});
  for (const Measured& m : measured) {
    if (table.rows() >= kMostRatios) break;
    const Record::Error& e = *m.shown->error;
    table.Add({m.key, e.worst_ratio, e.max_abs, e.max_ulp,
               std::isfinite(m.median_us) ? Cell(m.median_us) : Cell(),
               Badge(Name(m.shown->verdict))});
  }
  if (measured.size() > table.rows()) {
    table.Note(
        fmt::format("the first {} of {}", table.rows(), measured.size()));
  }
  table.Write(page.w);
}

void Roofline(Page page, const std::vector<Measured>& measured) {
  Chart chart{
      .title = "Measured against the floor",
      .x = {.label = "floor of this machine, from ceilings measured in the run",
            .kind = "time",
            .log = true},
      .y = {.label = "measured", .kind = "time", .log = true}};
  Chart::Series ours{.name = "ours"}, native{.name = "library under test"};
  Chart::Series floor{.name = "floor", .line = true, .dots = false};
  Chart::Series twice{
      .name = "twice the floor", .line = true, .dots = false, .dashed = true};
  double low = INFINITY, high = 0;
  std::vector<std::pair<double, const Measured*>> far;
  for (const Measured& m : measured) {
    const double f = m.shown->floor_us.value_or(0);
    if (!(f > 0) || !std::isfinite(f) || !(m.median_us > 0)) continue;
    (m.shown->native ? native : ours)
        .points.push_back({.x = f, .y = m.median_us, .name = m.key});
    low = std::min(low, f);
    high = std::max(high, f);
    far.emplace_back(m.median_us / f, &m);
  }
  if (far.empty()) {
    Missing(page.w, "No record has a floor to be held against. To get one:",
            "shardproof bench --json result.json");
    return;
  }
  for (const double x : {low, high}) {
    floor.points.push_back({.x = x, .y = x});
    twice.points.push_back({.x = x, .y = 2 * x});
  }
  chart.series = {ours, native, floor, twice};
  std::erase_if(chart.series, [](const auto& s) { return s.points.empty(); });
  page.charts.Figure(page.w,
                     "Measured time against the least that the machine allows: "
                     "on the line is as good as it gets",
                     "roofline", {chart});
  std::stable_sort(far.begin(), far.end(), [](const auto& a, const auto& b) {
    return a.first > b.first;
  });
  Table table("Furthest from the floor", {{"key", Column::kKey},
                                          {"median", Column::kTime},
                                          {"floor", Column::kTime},
                                          {"times the floor", Column::kNumber},
                                          {"GFLOP/s", Column::kNumber}});
  for (const auto& [ratio, m] : far) {
    if (table.rows() >= kMostRatios) break;
    table.Add({m->key, m->median_us, *m->shown->floor_us, ratio,
               CellOf(m->shown->gflops)});
  }
  if (far.size() > table.rows()) {
    table.Note(fmt::format("the first {} of {}", table.rows(), far.size()));
  }
  table.Write(page.w);
}

std::vector<Cell> RecordRow(const Measured& m) {
  const Record& r = *m.shown;
  std::string backend = r.backend;
  if (r.memory != "shared") backend += ", " + r.memory;
  if (r.emulated) backend += ", emulated";
  Cell range, ratio, flags;
  if (r.time_us.has_value()) {
    range = Range{r.time_us->p10, r.time_us->p90};
    std::string text;
    for (const std::string& flag : r.time_us->flags) {
      text += (text.empty() ? "" : "; ") + flag;
    }
    if (!text.empty()) flags = std::move(text);
  }
  if (r.error.has_value()) ratio = r.error->worst_ratio;
  return {r.case_name,
          r.native ? r.variant + " (library)" : r.variant,
          backend,
          static_cast<double>(r.ranks),
          ParamsText(r),
          Badge(Name(r.verdict)),
          std::isnan(m.median_us) ? Cell() : Cell(m.median_us),
          range,
          CellOf(r.algbw_gbps),
          CellOf(r.busbw_gbps),
          CellOf(r.gflops),
          CellOf(r.predicted_us),
          CellOf(r.floor_us),
          ratio,
          flags};
}

}  // namespace

void HistorySection(Page page) {
  page.w.Write("<h3>History and numerical drift</h3>\n");
  // Those with the latest change first.
  std::vector<const History*> histories;
  for (const History& h : page.report.histories) histories.push_back(&h);
  std::stable_sort(histories.begin(), histories.end(),
                   [](const History* a, const History* b) {
                     return a->changes.size() > b->changes.size();
                   });
  if (histories.size() > kMostHistories) histories.resize(kMostHistories);
  std::vector<Chart> times, drifts;
  for (const History* h : histories) {
    auto [time, drift] = Strips(*h);
    times.push_back(std::move(time));
    drifts.push_back(std::move(drift));
  }
  if (histories.empty()) {
    Missing(page.w,
            "There is no history here. To see one:", "shardproof history CASE");
    return;
  }
  page.w.Write("<div class=\"pair\">\n");
  page.charts.Figure(page.w,
                     "Time; strong lines are change points, thin lines begin "
                     "an epoch",
                     "history", times);
  page.charts.Figure(page.w, "Numerical drift: error over its bound", "history",
                     drifts);
  page.w.Write("</div>\n");
  HistoryTable(page, histories);
  if (page.report.histories.size() > kMostHistories) {
    page.w.Write("<p class=\"note\">{} of {} histories are shown.</p>\n",
                 kMostHistories, page.report.histories.size());
  }
}

void RecordSection(Page page) {
  const auto measured = ByKey(page.report);
  page.w.Write("<h3>Distance to the floor</h3>\n");
  Roofline(page, measured);
  page.w.Write("<h3>Numerical error beside speed</h3>\n");
  if (std::none_of(measured.begin(), measured.end(), [](const Measured& m) {
        return m.shown->error.has_value();
      })) {
    Missing(page.w, "No record has an error that was measured. To measure it:",
            "shardproof verify --json result.json");
  }
  RatioTable(page, measured);
  page.w.Write("<h3>All records</h3>\n");
  if (measured.empty()) {
    Missing(page.w, "Nothing was measured. To measure:", "shardproof run");
    return;
  }
  Table table("Records, one row for each key; medians over launches",
              {{"case", Column::kName},
               {"variant"},
               {"backend"},
               {"ranks", Column::kWhole},
               {"parameters", Column::kName},
               {"verdict"},
               {"median", Column::kTime},
               {"10 to 90 %", Column::kTime},
               {"algbw, GB/s", Column::kNumber},
               {"busbw, GB/s", Column::kNumber},
               {"GFLOP/s", Column::kNumber},
               {"predicted", Column::kTime},
               {"floor", Column::kTime},
               {"error over bound", Column::kNumber},
               {"flags"}},
              Table::kFilterable);
  for (const Measured& m : measured) {
    if (table.rows() >= kMostRecords) break;
    table.Add(RecordRow(m));
  }
  if (measured.size() > kMostRecords) {
    table.Note(
        fmt::format("the first {} of {}", kMostRecords, measured.size()));
  }
  table.Write(page.w);
}

void KernelPage(Page page) {
  SliceSection(page);
  HistorySection(page);
  SampleSection(page);
  RecordSection(page);
}

}  // namespace shardproof::html
