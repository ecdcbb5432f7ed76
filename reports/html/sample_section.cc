// Single samples: their distribution in each launch, and every rank over time.
// Samples are many, so only some keys are shown: the slower ones, then those
// whose samples spread most.
#include <algorithm>
#include <cmath>
#include <set>
#include <utility>

#include "reports/html/pages.h"
#include "reports/html/table.h"

namespace shardproof::html {
namespace {

constexpr size_t kMostDistributions = 40;
constexpr size_t kMostLaunches = 8;
constexpr int kQuantiles = 40;  // Steps of the drawn distribution.
constexpr size_t kMostRankMaps = 12;
constexpr size_t kMostRanks = 32;
constexpr int kShades = 8;

std::vector<double> SortedSamples(const Record& r) {
  std::vector<double> samples;
  if (!r.time_us.has_value()) return samples;
  for (const double s : r.time_us->samples_us) {
    if (std::isfinite(s)) samples.push_back(s);
  }
  std::sort(samples.begin(), samples.end());
  return samples;
}

// Hyndman and Fan's seventh: linear between the order statistics.
double Quantile(const std::vector<double>& sorted, double q) {
  const double at = q * static_cast<double>(sorted.size() - 1);
  const auto below = static_cast<size_t>(at);
  const size_t above = std::min(below + 1, sorted.size() - 1);
  const double share = at - static_cast<double>(below);
  return sorted[below] + share * (sorted[above] - sorted[below]);
}

double Spread(const Record& r) {
  if (!r.time_us.has_value()) return 0;
  const Record::Time& t = *r.time_us;
  const double spread = (t.p90 - t.p10) / t.median;
  return std::isfinite(spread) ? spread : 0;
}

// Slower keys, then by spread.
std::vector<const Measured*> WorthShowing(
    Page page, const std::vector<Measured>& measured) {
  std::set<std::string_view> slower;
  for (const Comparison& c : page.report.comparisons) {
    if (c.change == Change::kRegressed) slower.insert(c.key);
  }
  std::vector<const Measured*> chosen;
  for (const Measured& m : measured) {
    if (m.shown->time_us.has_value()) chosen.push_back(&m);
  }
  std::stable_sort(chosen.begin(), chosen.end(), [&](auto* a, auto* b) {
    const bool a_slower = slower.count(a->key) > 0;
    const bool b_slower = slower.count(b->key) > 0;
    if (a_slower != b_slower) return a_slower;
    return Spread(*a->shown) > Spread(*b->shown);
  });
  return chosen;
}

void Distributions(Page page, const std::vector<const Measured*>& chosen) {
  std::vector<Chart> charts;
  Table table("Quantiles of the samples of each launch",
              {{"key", Column::kKey},
               {"launch"},
               {"smallest", Column::kTime},
               {"10 %", Column::kTime},
               {"50 %", Column::kTime},
               {"90 %", Column::kTime},
               {"largest", Column::kTime},
               {"samples", Column::kWhole}});
  for (const Measured* m : chosen) {
    if (charts.size() >= kMostDistributions) break;
    Chart chart{.title = m->key,
                .x = {.label = "time", .kind = "time"},
                .y = {.label = "share of samples below", .kind = "portion"}};
    const size_t first =
        m->in.size() > kMostLaunches ? m->in.size() - kMostLaunches : 0;
    for (size_t i = first; i < m->in.size(); ++i) {
      const std::vector<double> sorted = SortedSamples(*m->in[i].record);
      if (sorted.size() < 2) continue;
      const std::string& launch = page.report.launches[m->in[i].launch].name;
      Chart::Series series{.name = launch, .line = true, .dots = false};
      for (int q = 0; q <= kQuantiles; ++q) {
        const double share = static_cast<double>(q) / kQuantiles;
        series.points.push_back({.x = Quantile(sorted, share), .y = share});
      }
      chart.series.push_back(std::move(series));
      table.Add({m->key, launch, sorted.front(), Quantile(sorted, 0.1),
                 Quantile(sorted, 0.5), Quantile(sorted, 0.9), sorted.back(),
                 static_cast<double>(m->in[i].record->time_us->samples)});
    }
    if (!chart.series.empty()) charts.push_back(std::move(chart));
  }
  if (charts.empty()) {
    Missing(page.w, "No record has samples. To keep them:",
            "shardproof bench --json result.json");
    return;
  }
  page.charts.Figure(page.w, "Distribution of the samples by launch", "samples",
                     charts);
  table.Note(fmt::format("of {} keys, the slower and the noisiest first",
                         charts.size()));
  table.Write(page.w);
}

double MedianOf(std::vector<double> values) {
  std::erase_if(values, [](double v) { return !std::isfinite(v); });
  if (values.empty()) return std::nan("");
  const auto middle = values.begin() + static_cast<long>(values.size() / 2);
  std::nth_element(values.begin(), middle, values.end());
  return *middle;
}

void RankMap(Writer& w, const Measured& m) {
  const auto& ranks = m.shown->time_us->rank_samples_us;
  double low = INFINITY, high = 0;
  size_t columns = 0;
  for (const auto& samples : ranks) {
    columns = std::max(columns, samples.size());
    for (const double s : samples) {
      if (!std::isfinite(s) || s <= 0) continue;
      low = std::min(low, s);
      high = std::max(high, s);
    }
  }
  columns = std::min<size_t>(columns, kKeptRankSamples);
  if (columns == 0 || high <= 0) return;
  const std::string caption = fmt::format("{}: from {} to {}", m.key,
                                          TimeAsText(low), TimeAsText(high));
  w.Write(
      "<div class=\"scroll\" tabindex=\"0\" role=\"region\" "
      "aria-label=\"{}\">\n<table class=\"heat ranks\"><caption>{}"
      "</caption>\n<thead><tr><th scope=\"col\">rank</th>"
      "<th scope=\"col\" class=\"n\">median</th>"
      "<th scope=\"colgroup\" colspan=\"{}\">iterations, the first on the "
      "left</th></tr></thead>\n<tbody>\n",
      caption, caption, columns);
  for (size_t r = 0; r < std::min(ranks.size(), kMostRanks); ++r) {
    w.Write("<tr><th scope=\"row\">{}</th><td class=\"n\">{}</td>", r,
            TimeAsText(MedianOf(ranks[r])));
    for (size_t i = 0; i < columns; ++i) {
      if (i >= ranks[r].size() || !std::isfinite(ranks[r][i])) {
        w.Write("<td></td>");
        continue;
      }
      const double share = high > low
                               ? std::log(std::max(ranks[r][i], low) / low) /
                                     std::log(high / low)
                               : 0;
      const int shade =
          std::clamp(static_cast<int>(share * kShades), 0, kShades - 1);
      // A digit, so that it is not told by colour alone: 0 fast, 7 slow.
      w.Write("<td class=\"h{}\">{}</td>", shade, shade);
    }
    w.Write("</tr>\n");
  }
  w.Write("</tbody></table></div>\n");
}

// The noisiest and the slowest of each case, by turns.
void RankMaps(Page page, const std::vector<const Measured*>& chosen) {
  std::vector<const Measured*> maps;
  std::set<std::string_view> cases;
  for (const Measured* m : chosen) {
    if (maps.size() >= kMostRankMaps) break;
    if (m->shown->time_us->rank_samples_us.empty()) continue;
    if (cases.insert(m->shown->case_name).second) maps.push_back(m);
  }
  page.w.Write("<h3>Ranks over iterations</h3>\n");
  if (maps.empty()) {
    Missing(page.w, "No record has the samples of its ranks. To keep them:",
            "shardproof bench --json result.json");
    return;
  }
  page.w.Write(
      "<p>One row for each rank; 0 is the fastest and {} the slowest "
      "of the table, on a logarithmic scale. The noisiest key of each "
      "case.</p>\n",
      kShades - 1);
  for (const Measured* m : maps) RankMap(page.w, *m);
}

}  // namespace

void SampleSection(Page page) {
  const auto measured = ByKey(page.report);
  const auto chosen = WorthShowing(page, measured);
  page.w.Write("<h3>Samples by launch</h3>\n");
  Distributions(page, chosen);
  RankMaps(page, chosen);
}

}  // namespace shardproof::html
