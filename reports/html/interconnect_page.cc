// For who runs the network: what a message costs, which links are slow, how
// far it scales.
#include <algorithm>
#include <cmath>
#include <map>
#include <tuple>
#include <utility>

#include "reports/html/pages.h"
#include "reports/html/table.h"
#include "reports/key.h"

namespace shardproof::html {
namespace {

constexpr size_t kMostCharts = 60;
constexpr size_t kMostSideBySide = 300;

using Group = std::tuple<std::string, std::string, int, std::string>;

std::string GroupText(const Group& g) {
  const auto& [case_name, backend, ranks, params] = g;
  return fmt::format("{}, {} ranks on {}{}{}", case_name, ranks, backend,
                     params.empty() ? "" : ", ", params);
}

// Of records: everything but the size.
std::string ParamsWithoutSize(const Record& r) {
  std::string text;
  for (const auto& [axis, value] : r.params) {
    if (axis == "count" || axis == "bytes") continue;
    text += fmt::format("{}{}={}", text.empty() ? "" : " ", axis, value);
  }
  return text;
}

bool HasSize(const Record& r) {
  return r.verdict == Verdict::kPassed && r.time_us.has_value() &&
         r.algbw_gbps.value_or(0) > 0 && std::isfinite(*r.algbw_gbps) &&
         std::isfinite(r.time_us->median) &&
         std::any_of(r.params.begin(), r.params.end(), [](const auto& p) {
           return p.first == "count" || p.first == "bytes";
         });
}

// Time against size of every variant, as the records of this run have it: also
// where nothing was fitted.
void MeasuredCurves(Page page, const std::vector<Measured>& measured) {
  std::map<Group, std::map<std::string, std::map<double, const Record*>>> all;
  for (const Measured& m : measured) {
    const Record& r = *m.shown;
    if (!HasSize(r)) continue;
    // 1e9 bytes per second is 1e3 bytes per µs.
    const double bytes = std::round(*r.algbw_gbps * 1e3 * r.time_us->median);
    std::string variant = r.variant;
    if (r.memory != "shared") variant += ", " + r.memory;
    all[{r.case_name, r.backend, r.ranks, ParamsWithoutSize(r)}][variant]
       [bytes] = &r;
  }
  std::vector<Chart> times, rates;
  for (const auto& [group, variants] : all) {
    if (times.size() >= kMostCharts) break;
    Chart time{.title = GroupText(group),
               .x = {.label = "size", .kind = "bytes", .log = true},
               .y = {.label = "time, median and 10 to 90 %",
                     .kind = "time",
                     .log = true}};
    Chart rate{.title = time.title,
               .x = time.x,
               .y = {.label = "algorithm bandwidth", .kind = "rate"}};
    bool several = false;
    for (const auto& [variant, points] : variants) {
      several = several || points.size() > 1;
      Chart::Series t{.name = variant, .line = true, .whiskers = true};
      Chart::Series b{.name = variant, .line = true};
      for (const auto& [bytes, r] : points) {
        t.points.push_back({.x = bytes,
                            .y = r->time_us->median,
                            .low = r->time_us->p10,
                            .high = r->time_us->p90});
        b.points.push_back({.x = bytes, .y = *r->algbw_gbps});
      }
      time.series.push_back(std::move(t));
      rate.series.push_back(std::move(b));
    }
    if (!several) continue;
    times.push_back(std::move(time));
    rates.push_back(std::move(rate));
  }
  if (times.empty()) return;
  page.w.Write(
      "<h3>Algorithms against size, as measured in this run</h3>\n"
      "<p>The numbers are in the table of all records.</p>\n"
      "<div class=\"pair\">\n");
  page.charts.Figure(page.w, "Time", "curves", times);
  page.charts.Figure(page.w, "Bandwidth", "curves", rates);
  page.w.Write("</div>\n");
}

void ScalingTable(Page page) {
  Table table("Scaling", {{"case", Column::kName},
                          {"variant"},
                          {"backend"},
                          {"kind"},
                          {"parameters", Column::kName},
                          {"ranks", Column::kWhole},
                          {"median", Column::kTime},
                          {"95 % interval", Column::kTime},
                          {"ideal", Column::kTime},
                          {"efficiency", Column::kPortion}});
  for (const ScalePoint& s : page.report.interconnect.scaling) {
    table.Add({s.case_name, s.variant, Of(s.backend, s.machine), s.kind,
               s.params, static_cast<double>(s.ranks), s.median_us,
               Range{s.low_us, s.high_us}, s.ideal_us, s.efficiency});
  }
  table.Write(page.w);
}

void ScalingSection(Page page) {
  const auto& scaling = page.report.interconnect.scaling;
  page.w.Write("<h3>Scaling and congestion</h3>\n");
  if (scaling.empty()) {
    Missing(page.w, "Scaling has not been measured. To measure it:",
            "shardproof scale --json scale.json");
    return;
  }
  page.w.Write(
      "<p>strong: the whole stays the same; weak: each rank's share stays the "
      "same; pairs: half as many pairs as ranks exchange at the same time. "
      "Ideal is from the smallest number of ranks.</p>\n");
  using Key = std::tuple<std::string, std::string, std::string, std::string>;
  std::map<Key, std::map<std::string, std::vector<const ScalePoint*>>> groups;
  for (const ScalePoint& s : scaling) {
    groups[{s.kind, s.case_name, Of(s.backend, s.machine), s.params}][s.variant]
        .push_back(&s);
  }
  std::vector<Chart> charts;
  for (auto& [key, variants] : groups) {
    if (charts.size() >= kMostCharts) break;
    const auto& [kind, case_name, backend, params] = key;
    Chart chart{.title = fmt::format("{} scaling of {} on {} {}", kind,
                                     case_name, backend, params),
                .x = {.label = "ranks", .kind = "whole"},
                .y = {.label = "time", .kind = "time"}};
    int color = 0;
    for (auto& [variant, points] : variants) {
      std::sort(points.begin(), points.end(),
                [](auto* a, auto* b) { return a->ranks < b->ranks; });
      Chart::Series measured{
          .name = variant, .line = true, .whiskers = true, .color = color};
      Chart::Series ideal{.name = variant + ", ideal",
                          .line = true,
                          .dots = false,
                          .dashed = true,
                          .color = color};
      for (const ScalePoint* s : points) {
        const auto ranks = static_cast<double>(s->ranks);
        measured.points.push_back({.x = ranks,
                                   .y = s->median_us,
                                   .low = s->low_us,
                                   .high = s->high_us});
        ideal.points.push_back({.x = ranks, .y = s->ideal_us});
      }
      chart.series.push_back(std::move(measured));
      chart.series.push_back(std::move(ideal));
      ++color;
    }
    charts.push_back(std::move(chart));
  }
  page.charts.Figure(page.w, "Time against ranks, with the ideal line",
                     "scaling", charts);
  ScalingTable(page);
}

// What a message costs on the first machine, and on the second.
void FitsSideBySide(Page page, const std::string& first,
                    const std::string& second) {
  Table table("What a message costs on both machines",
              {{"case", Column::kName},
               {"variant"},
               {"backend"},
               {"ranks", Column::kWhole},
               {"parameters", Column::kName},
               {"from, on each", Column::kBytes},
               {"\u03b1, " + first, Column::kTime},
               {"\u03b1, " + second, Column::kTime},
               {"second against first", Column::kShare},
               {"\u03b2 per MiB, " + first, Column::kTime},
               {"\u03b2 per MiB, " + second, Column::kTime},
               {"second against first", Column::kShare}});
  using Key =
      std::tuple<std::string, std::string, std::string, int, std::string>;
  const auto key = [](const Fit& f) {
    return Key{f.case_name, f.variant, f.backend, f.ranks, f.params};
  };
  const auto against = [](double a, double b) {
    return a > 0 ? Cell(b / a - 1) : Cell();
  };
  std::map<Key, const Fit*> others;
  for (const Fit& f : page.report.interconnect.fits) {
    if (f.machine == second) others[key(f)] = &f;
  }
  for (const Fit& f : page.report.interconnect.fits) {
    const auto other = others.find(key(f));
    if (f.machine != first || other == others.end()) continue;
    // Breakpoints differ between machines: piece by piece from the small end.
    const size_t pieces =
        std::min(f.pieces.size(), other->second->pieces.size());
    for (size_t i = 0; i < pieces; ++i) {
      const Fit::Piece &a = f.pieces[i], &b = other->second->pieces[i];
      const double beta_a = a.beta_us_per_mib.value;
      const double beta_b = b.beta_us_per_mib.value;
      table.Add({f.case_name, f.variant, f.backend,
                 static_cast<double>(f.ranks), f.params,
                 Range{static_cast<double>(a.from_bytes),
                       static_cast<double>(b.from_bytes)},
                 a.alpha_us.value, b.alpha_us.value,
                 against(a.alpha_us.value, b.alpha_us.value), beta_a, beta_b,
                 against(beta_a, beta_b)});
    }
  }
  if (table.rows() > 0) table.Write(page.w);
}

// Launches of two machines or more: the first two beside one another.
void SideBySide(Page page, const std::vector<Measured>& measured) {
  if (!OfSeveralMachines(page.report.launches)) return;
  std::vector<std::string> names;  // Of the machines,
  std::vector<size_t> machine_of;  // and which of them is each launch's.
  for (const std::string& name : MachineNames(page.report.launches)) {
    const auto found = std::find(names.begin(), names.end(), name);
    machine_of.push_back(static_cast<size_t>(found - names.begin()));
    if (found == names.end()) names.push_back(name);
  }
  page.w.Write("<h3>Two machines side by side</h3>\n");
  FitsSideBySide(page, names[0], names[1]);
  Table table("Medians of the same keys on both machines",
              {{"key", Column::kKey},
               {names[0], Column::kTime},
               {names[1], Column::kTime},
               {"second against first", Column::kShare}},
              Table::kFilterable);
  size_t both = 0;
  for (const Measured& m : measured) {
    std::vector<std::vector<double>> times(2);
    for (const Measured::In& in : m.in) {
      const size_t machine = machine_of[in.launch];
      if (machine < 2 && in.record->time_us.has_value()) {
        times[machine].push_back(in.record->time_us->median);
      }
    }
    if (times[0].empty() || times[1].empty()) continue;
    if (++both > kMostSideBySide) continue;
    const auto median = [](std::vector<double>& v) {
      const auto middle = v.begin() + static_cast<long>(v.size() / 2);
      std::nth_element(v.begin(), middle, v.end());
      return *middle;
    };
    const double a = median(times[0]), b = median(times[1]);
    table.Add({m.key, a, b, b / a - 1});
  }
  if (both > kMostSideBySide) {
    table.Note(fmt::format("the first {} of {}", kMostSideBySide, both));
  }
  table.Write(page.w);
  if (both == 0) {
    page.w.Write("<p>The two machines have no key in common.</p>\n");
  }
}

}  // namespace

void InterconnectPage(Page page) {
  const auto measured = ByKey(page.report);
  if (!page.report.interconnect.findings.empty()) {
    page.w.Write("<ul class=\"findings\">\n");
    for (const std::string& finding : page.report.interconnect.findings) {
      page.w.Write("<li>{}</li>\n", finding);
    }
    page.w.Write("</ul>\n");
  }
  FitSection(page);
  MeasuredCurves(page, measured);
  PairSection(page);
  ScalingSection(page);
  SideBySide(page, measured);
}

}  // namespace shardproof::html
