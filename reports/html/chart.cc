#include "reports/html/chart.h"

#include <algorithm>
#include <cmath>
#include <cstdlib>

namespace shardproof::html {
namespace {

using Json = nlohmann::ordered_json;

// Four digits are more than a pixel; null where there is nothing to draw.
Json Rounded(double value) {
  if (!std::isfinite(value)) return nullptr;
  return std::strtod(fmt::format("{:.4g}", value).c_str(), nullptr);
}

Json AxisJson(const Chart::Axis& axis) {
  Json json = {{"label", Clean(axis.label)}, {"kind", axis.kind}};
  if (axis.log) json["log"] = true;
  for (const std::string& name : axis.names) {
    json["names"].push_back(Clean(name, 120));
  }
  return json;
}

bool Drawable(const Chart::Point& p) {
  return std::isfinite(p.x) && std::isfinite(p.y);
}

Json SeriesJson(const Chart::Series& series) {
  Json json = {{"name", Clean(series.name, 120)}};
  if (series.line) json["line"] = true;
  if (!series.dots) json["bare"] = true;
  if (series.dashed) json["dashed"] = true;
  if (series.color >= 0) json["color"] = series.color;
  Json& points = json["points"] = Json::array();
  bool named = false;
  for (const Chart::Point& p : series.points) {
    if (!Drawable(p)) continue;
    Json point = {Rounded(p.x), Rounded(p.y)};
    if (series.whiskers) {
      point.push_back(Rounded(p.low));
      point.push_back(Rounded(p.high));
    }
    points.push_back(std::move(point));
    named = named || !p.name.empty();
  }
  if (series.whiskers) json["whiskers"] = true;
  if (named) {
    for (const Chart::Point& p : series.points) {
      if (Drawable(p)) json["names"].push_back(Clean(p.name, 160));
    }
  }
  return json;
}

Json ChartJson(const Chart& chart) {
  Json json = {{"title", Clean(chart.title, 240)},
               {"x", AxisJson(chart.x)},
               {"y", AxisJson(chart.y)}};
  if (chart.sideways) json["sideways"] = true;
  for (const Chart::Series& s : chart.series) {
    json["series"].push_back(SeriesJson(s));
  }
  for (const Chart::Band& b : chart.bands) {
    json["bands"].push_back({Rounded(b.from), Rounded(b.to)});
  }
  for (const Chart::Mark& m : chart.marks) {
    json["marks"].push_back({{"x", Rounded(m.x)},
                             {"label", Clean(m.label, 120)},
                             {"strong", m.strong}});
  }
  return json;
}

bool HasPoints(const Chart& chart) {
  return std::any_of(
      chart.series.begin(), chart.series.end(), [](const Chart::Series& s) {
        return std::any_of(s.points.begin(), s.points.end(), Drawable);
      });
}

}  // namespace

void Charts::Figure(Writer& w, std::string_view caption, std::string_view group,
                    const std::vector<Chart>& charts) {
  if (std::none_of(charts.begin(), charts.end(), HasPoints)) return;
  std::string numbers;
  for (const Chart& chart : charts) {
    if (!numbers.empty()) numbers += ' ';
    numbers += fmt::format("{}", data_.size());
    data_.push_back(ChartJson(chart));
  }
  w.Write(
      "<figure class=\"chart\" data-charts=\"{}\" data-group=\"{}\">"
      "<figcaption>{}</figcaption></figure>\n",
      numbers, group, caption);
}

void Charts::WriteData(Writer& w) const {
  const std::string text =
      data_.dump(-1, ' ', false, Json::error_handler_t::replace);
  std::string safe;
  safe.reserve(text.size());
  for (const char c : text) {
    if (c == '<') {
      safe += "\\u003c";
    } else {
      safe += c;
    }
  }
  w.Write("<script type=\"application/json\" id=\"charts\">{}</script>\n",
          Markup{std::move(safe)});
}

}  // namespace shardproof::html
