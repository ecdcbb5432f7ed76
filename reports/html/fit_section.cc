// alpha, beta and gamma of every algorithm, how well they fit, and from which
// size on which algorithm is the faster one.
#include <algorithm>
#include <cmath>
#include <map>
#include <tuple>
#include <utility>

#include "reports/html/pages.h"
#include "reports/html/table.h"

namespace shardproof::html {
namespace {

constexpr size_t kMostCharts = 60;
constexpr double kMiB = 1 << 20;

using Group = std::tuple<std::string, std::string, int, std::string>;

void Scorecard(Page page) {
  Table table(
      "Scorecard: time = messages \u00b7 \u03b1 + bytes \u00b7 \u03b2 "
      "+ reduced bytes \u00b7 \u03b3, with 95 % intervals",
      {{"case", Column::kName},
       {"variant"},
       {"backend"},
       {"ranks", Column::kWhole},
       {"parameters", Column::kName},
       {"from", Column::kBytes},
       {"to", Column::kBytes},
       {"\u03b1 per message", Column::kTime},
       {"interval", Column::kTime},
       {"\u03b2 per MiB", Column::kTime},
       {"interval", Column::kTime},
       {"\u03b3 per MiB", Column::kTime},
       {"interval", Column::kTime},
       {"link rate, GB/s", Column::kNumber},
       {"points", Column::kWhole}});
  for (const Fit& f : page.report.interconnect.fits) {
    for (const Fit::Piece& p : f.pieces) {
      Cell gamma, gamma_range;
      if (p.gamma_us_per_mib.has_value()) {
        gamma = p.gamma_us_per_mib->value;
        gamma_range = Range{p.gamma_us_per_mib->low, p.gamma_us_per_mib->high};
      }
      const double beta = p.beta_us_per_mib.value;
      table.Add({f.case_name, f.variant, Of(f.backend, f.machine),
                 static_cast<double>(f.ranks), f.params,
                 static_cast<double>(p.from_bytes),
                 static_cast<double>(p.to_bytes), p.alpha_us.value,
                 Range{p.alpha_us.low, p.alpha_us.high}, beta,
                 Range{p.beta_us_per_mib.low, p.beta_us_per_mib.high}, gamma,
                 gamma_range, beta > 0 ? Cell(kMiB / (1e3 * beta)) : Cell(),
                 static_cast<double>(p.points)});
    }
  }
  table.Write(page.w);
}

// Nothing where nothing was predicted.
Cell Known(double value) { return std::isnan(value) ? Cell() : Cell(value); }

void Quality(Page page) {
  Table table(
      "How well it fits, and how well it was predicted from plain "
      "messages",
      {{"case", Column::kName},
       {"variant"},
       {"backend"},
       {"ranks", Column::kWhole},
       {"parameters", Column::kName},
       {"half of the rate at", Column::kBytes},
       {"rate at large sizes, GB/s", Column::kNumber},
       {"median error of the fit", Column::kPortion},
       {"worst", Column::kPortion},
       {"median error of the prediction", Column::kPortion},
       {"worst", Column::kPortion}});
  for (const Fit& f : page.report.interconnect.fits) {
    table.Add({f.case_name, f.variant, Of(f.backend, f.machine),
               static_cast<double>(f.ranks), f.params, f.half_bandwidth_bytes,
               f.asymptotic_gbps, f.median_error, f.worst_error,
               Known(f.median_prediction_error),
               Known(f.worst_prediction_error)});
  }
  table.Write(page.w);
}

void Points(Page page) {
  page.w.Write(
      "<details><summary>Every point, with what was fitted and "
      "predicted</summary>\n");
  Table table("Measured, fitted, predicted",
              {{"case", Column::kName},
               {"variant"},
               {"backend"},
               {"ranks", Column::kWhole},
               {"size", Column::kBytes},
               {"measured", Column::kTime},
               {"95 % interval", Column::kTime},
               {"fitted", Column::kTime},
               {"residual", Column::kShare},
               {"predicted", Column::kTime}},
              Table::kFilterable);
  for (const Fit& f : page.report.interconnect.fits) {
    for (const Fit::Point& p : f.points) {
      if (table.rows() >= 2000) break;
      table.Add({f.case_name, f.variant, Of(f.backend, f.machine),
                 static_cast<double>(f.ranks), static_cast<double>(p.bytes),
                 p.measured_us, Range{p.low_us, p.high_us}, p.fitted_us,
                 p.measured_us / p.fitted_us - 1, p.predicted_us});
    }
  }
  table.Write(page.w);
  page.w.Write("</details>\n");
}

// Bytes per µs are 1e-3 GB/s.
double Rate(double bytes, double us) { return bytes / us / 1e3; }

void FitCharts(Page page) {
  const Interconnect& links = page.report.interconnect;
  std::map<Group, std::vector<const Fit*>> groups;
  for (const Fit& f : links.fits) {
    groups[{f.case_name, Of(f.backend, f.machine), f.ranks, f.params}]
        .push_back(&f);
  }
  std::vector<Chart> times, rates, residuals, predictions;
  for (const auto& [group, fits] : groups) {
    if (times.size() >= kMostCharts) break;
    const auto& [case_name, backend, ranks, params] = group;
    const Chart::Axis size{.label = "size", .kind = "bytes", .log = true};
    Chart time{.title = fmt::format("{}, {} ranks on {} {}", case_name, ranks,
                                    backend, params),
               .x = size,
               .y = {.label = "time", .kind = "time", .log = true}};
    Chart rate{.title = time.title,
               .x = size,
               .y = {.label = "bandwidth", .kind = "rate"}};
    Chart residual{.title = time.title,
                   .x = size,
                   .y = {.label = "measured against fitted", .kind = "share"}};
    Chart prediction{
        .title = time.title,
        .x = size,
        .y = {.label = "measured against predicted", .kind = "share"}};
    int color = 0;
    for (const Fit* f : fits) {
      Chart::Series m{.name = f->variant, .whiskers = true, .color = color};
      Chart::Series fitted{.name = f->variant + ", fitted",
                           .line = true,
                           .dots = false,
                           .dashed = true,
                           .color = color};
      Chart::Series r{
          .name = f->variant, .line = true, .whiskers = true, .color = color};
      Chart::Series e{.name = f->variant, .line = true, .color = color};
      Chart::Series g = e;
      for (const Fit::Point& p : f->points) {
        if (p.bytes <= 0) continue;  // No place on a logarithmic axis.
        const auto bytes = static_cast<double>(p.bytes);
        m.points.push_back({.x = bytes,
                            .y = p.measured_us,
                            .low = p.low_us,
                            .high = p.high_us});
        fitted.points.push_back({.x = bytes, .y = p.fitted_us});
        r.points.push_back({.x = bytes,
                            .y = Rate(bytes, p.measured_us),
                            .low = Rate(bytes, p.high_us),
                            .high = Rate(bytes, p.low_us)});
        e.points.push_back({.x = bytes, .y = p.measured_us / p.fitted_us - 1});
        g.points.push_back(
            {.x = bytes, .y = p.measured_us / p.predicted_us - 1});
      }
      time.series.push_back(std::move(m));
      time.series.push_back(std::move(fitted));
      rate.series.push_back(std::move(r));
      residual.series.push_back(std::move(e));
      prediction.series.push_back(std::move(g));
      ++color;
    }
    for (const Crossover& c : links.crossovers) {
      if (Group{c.case_name, Of(c.backend, c.machine), c.ranks, c.params} !=
          group) {
        continue;
      }
      time.marks.push_back({.x = c.bytes, .label = c.to, .strong = false});
    }
    times.push_back(std::move(time));
    rates.push_back(std::move(rate));
    residuals.push_back(std::move(residual));
    predictions.push_back(std::move(prediction));
  }
  page.w.Write("<div class=\"pair\">\n");
  page.charts.Figure(page.w,
                     "Latency with the fit; a vertical line is the size from "
                     "which the named variant is faster",
                     "fits", times);
  page.charts.Figure(page.w, "Bandwidth", "fits", rates);
  page.charts.Figure(page.w, "Residuals of the fit", "fits", residuals);
  page.charts.Figure(page.w, "Against the prediction from plain messages",
                     "fits", predictions);
  page.w.Write("</div>\n");
}

void Crossovers(Page page) {
  Table table("Crossovers", {{"case", Column::kName},
                             {"backend"},
                             {"ranks", Column::kWhole},
                             {"parameters", Column::kName},
                             {"from this size on", Column::kBytes},
                             {"95 % interval", Column::kBytes},
                             {"faster is"},
                             {"than"}});
  for (const Crossover& c : page.report.interconnect.crossovers) {
    table.Add({c.case_name, Of(c.backend, c.machine),
               static_cast<double>(c.ranks), c.params, c.bytes,
               Range{c.low, c.high}, c.to, c.from});
  }
  table.Write(page.w);
}

}  // namespace

void FitSection(Page page) {
  page.w.Write("<h3>What a message costs</h3>\n");
  if (page.report.interconnect.fits.empty()) {
    Missing(page.w, "No latencies and bandwidths were fitted. To fit them:",
            "shardproof fit --json fit.json");
    return;
  }
  Scorecard(page);
  FitCharts(page);
  Crossovers(page);
  Quality(page);
  Points(page);
}

}  // namespace shardproof::html
