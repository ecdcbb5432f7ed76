// Charts as data: what charts.js draws with Chart.js. Every chart is an
// addition to a table.
//
//     Charts charts;
//     charts.Figure(w, "history", {Chart{.title = key, .x = .., .series = ..}});
//     charts.WriteData(w);   // The data of all, once, as JSON.
//
// Contract: values that are not finite are left out of the picture. A figure
// with several charts has a box to choose one; figures of one group choose
// together.
#ifndef SHARDPROOF_REPORTS_HTML_CHART_H_
#define SHARDPROOF_REPORTS_HTML_CHART_H_

#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "reports/html/markup.h"

namespace shardproof::html {

struct Chart {
  struct Axis {
    std::string label = {};
    // "time" (µs), "bytes", "share", "rate" (GB/s), "number", "whole".
    std::string kind = "number";
    bool log = false;
    // Names of the positions 0, 1, 2, ...
    std::vector<std::string> names = {};
  };
  struct Point {
    double x = 0, y = 0;
    // Whiskers: along y, or along x where the chart is `sideways`.
    double low = 0, high = 0;
    std::string name = {};
  };
  struct Series {
    std::string name = {};
    std::vector<Point> points = {};
    bool line = false, dots = true, dashed = false, whiskers = false;
    int color = -1;  // -1: the next one.
  };
  struct Band {
    double from = 0, to = 0;  // Along x where `sideways`, along y otherwise.
  };
  struct Mark {
    double x = 0;
    std::string label = {};
    bool strong = false;  // A finding; otherwise a boundary.
  };

  std::string title = {};
  Axis x = {}, y = {};
  bool sideways = false;
  std::vector<Series> series = {};
  std::vector<Band> bands = {};
  std::vector<Mark> marks = {};
};

class Charts {
 public:
  // Nothing where no chart has a point.
  void Figure(Writer& w, std::string_view caption, std::string_view group,
              const std::vector<Chart>& charts);
  // <script type="application/json">, with no "<" in it.
  void WriteData(Writer& w) const;

 private:
  nlohmann::ordered_json data_ = nlohmann::ordered_json::array();
};

}  // namespace shardproof::html

#endif  // SHARDPROOF_REPORTS_HTML_CHART_H_
