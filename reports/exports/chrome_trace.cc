#include "reports/exports/chrome_trace.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>
#include <string_view>
#include <vector>

#include "reports/key.h"

namespace shardproof {
namespace {

using Json = nlohmann::ordered_json;
using Lanes = std::vector<std::vector<double>>;

bool IsTime(double us) { return std::isfinite(us) && us >= 0; }

// Invalid UTF-8 is replaced; JSON escapes the rest.
std::string Dump(const Json& json) {
  return json.dump(-1, ' ', false, Json::error_handler_t::replace);
}

class Events {
 public:
  // `event` is one JSON object.
  void Add(std::string_view event) {
    if (!text_.empty()) text_ += ",\n";
    text_ += event;
    ++count_;
  }
  void Name(std::string_view what, int process, int thread,
            std::string_view name) {
    Add(Dump({{"name", what},
              {"ph", "M"},
              {"pid", process},
              {"tid", thread},
              {"args", {{"name", name}}}}));
  }
  int64_t count() const { return count_; }
  const std::string& text() const { return text_; }

 private:
  std::string text_;
  int64_t count_ = 0;
};

Lanes LanesOf(const Record& r) {
  if (!r.time_us.has_value()) return {};
  if (!r.time_us->rank_samples_us.empty()) return r.time_us->rank_samples_us;
  if (r.time_us->samples_us.empty()) return {};
  return {r.time_us->samples_us};
}

void AddRecord(int process, std::string_view name, const Record& r,
               Events& events) {
  const bool by_rank = !r.time_us->rank_samples_us.empty();
  const Lanes lanes = LanesOf(r);
  size_t samples = 0;
  events.Name("process_name", process, 0, name);
  for (size_t lane = 0; lane < lanes.size(); ++lane) {
    events.Name("thread_name", process, static_cast<int>(lane),
                by_rank ? fmt::format("rank {}", lane) : "slowest rank");
    samples = std::max(samples, lanes[lane].size());
  }
  const std::string variant = Dump(r.variant);
  const std::string category = Dump(r.case_name);
  double start = 0;
  for (size_t i = 0; i < samples; ++i) {
    double slowest = 0;
    for (size_t lane = 0; lane < lanes.size(); ++lane) {
      if (i >= lanes[lane].size() || !IsTime(lanes[lane][i])) continue;
      const double us = lanes[lane][i];
      slowest = std::max(slowest, us);
      events.Add(fmt::format(
          R"({{"name":{},"cat":{},"ph":"X","pid":{},"tid":{},"ts":{},"dur":{},)"
          R"("args":{{"sample":{}}}}})",
          variant, category, process, lane, start, us, i));
    }
    // Finite even where samples are absurd: JSON has no infinity.
    start = std::min(start + slowest, 1e15);
  }
}

}  // namespace

std::string ChromeTrace(const Report& report) {
  Events events;
  int process = 0;
  int left_out = 0;
  for (const Launch& launch : report.launches) {
    for (const Record& r : launch.records) {
      const Lanes lanes = LanesOf(r);
      if (lanes.empty()) continue;
      auto wanted = static_cast<int64_t>(lanes.size()) + 1;
      for (const auto& lane : lanes) {
        wanted += static_cast<int64_t>(lane.size());
      }
      if (events.count() + wanted > kTraceEvents) {
        ++left_out;
        continue;
      }
      AddRecord(process, fmt::format("{}: {}", launch.name, KeyOf(r)), r,
                events);
      ++process;
    }
  }
  const Json other = {{"title", report.title}, {"left_out", left_out}};
  return fmt::format(
      "{{\"traceEvents\":[\n{}\n],\"displayTimeUnit\":\"ms\","
      "\"otherData\":{}}}\n",
      events.text(), Dump(other));
}

}  // namespace shardproof
