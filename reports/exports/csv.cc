#include "reports/exports/csv.h"

#include <algorithm>
#include <charconv>
#include <cstddef>
#include <optional>
#include <string_view>
#include <vector>

#include "reports/exports/text.h"
#include "reports/key.h"

namespace shardproof {
namespace {

bool IsNumber(std::string_view text) {
  double value = 0;
  const char* end = text.data() + text.size();
  const auto [stop, error] = std::from_chars(text.data(), end, value);
  return error == std::errc() && stop == end;
}

std::string Cell(std::string_view text) {
  std::string cell = Printable(text);
  constexpr std::string_view kFormula = "=+-@\t\r";
  if (!cell.empty() && kFormula.find(cell[0]) != std::string_view::npos &&
      !IsNumber(cell)) {
    cell.insert(0, 1, '\'');
  }
  if (cell.find_first_of(",\"\r\n") == std::string::npos) return cell;
  std::string quoted = "\"";
  for (const char c : cell) {
    if (c == '"') quoted += '"';
    quoted += c;
  }
  return quoted + '"';
}

// One line, cell by cell.
class Line {
 public:
  explicit Line(std::string& out) : out_(out) {}
  ~Line() { out_ += "\r\n"; }
  Line(const Line&) = delete;
  Line& operator=(const Line&) = delete;

  void Text(std::string_view text) { Raw(Cell(text)); }
  void Number(double value) { Raw(NumberText(value)); }
  void Number(const std::optional<double>& value) {
    Raw(value.has_value() ? NumberText(*value) : "");
  }
  void Integer(int64_t value) { Raw(std::to_string(value)); }
  void Bool(bool value) { Raw(value ? "true" : "false"); }
  void Empty(int count) {
    for (int i = 0; i < count; ++i) Raw("");
  }

 private:
  void Raw(std::string_view cell) {
    if (!first_) out_ += ',';
    first_ = false;
    out_ += cell;
  }

  std::string& out_;
  bool first_ = true;
};

std::vector<std::string> ParamNames(const Report& report) {
  std::vector<std::string> names;
  for (const Launch& launch : report.launches) {
    for (const Record& record : launch.records) {
      for (const auto& [name, value] : record.params) {
        if (std::find(names.begin(), names.end(), name) == names.end()) {
          names.push_back(name);
        }
      }
    }
  }
  return names;
}

void Time(const std::optional<Record::Time>& time, Line& line) {
  if (!time.has_value()) return line.Empty(9);
  const Record::Time& t = *time;
  for (const double us : {t.median, t.interval_low, t.interval_high, t.p10,
                          t.p90, t.min, t.max}) {
    line.Number(us);
  }
  line.Integer(t.samples);
  line.Integer(t.operations_per_sample);
}

void Error(const std::optional<Record::Error>& error, Line& line) {
  if (!error.has_value()) return line.Empty(4);
  line.Text(error->tier);
  line.Number(error->worst_ratio);
  line.Number(error->max_abs);
  line.Number(error->max_ulp);
}

void Traffic(const std::optional<Record::Traffic>& traffic, Line& line) {
  if (!traffic.has_value()) return line.Empty(2);
  line.Integer(traffic->bytes);
  line.Integer(traffic->messages);
}

void WriteRecord(const Launch& launch, const Record& r,
                 const std::vector<std::string>& params, std::string& out) {
  Line line(out);
  line.Text(launch.name);
  line.Text(launch.started);
  line.Text(launch.fingerprint.host);
  line.Text(launch.fingerprint.label);
  line.Text(r.case_name);
  line.Text(r.variant);
  line.Text(r.backend);
  line.Integer(r.ranks);
  line.Text(r.memory);
  line.Text(r.time_us.has_value() ? r.time_us->cadence : "");
  line.Bool(r.native);
  line.Bool(r.emulated);
  line.Text(Name(r.verdict));
  line.Text(r.reason);
  Time(r.time_us, line);
  line.Number(r.algbw_gbps);
  line.Number(r.busbw_gbps);
  line.Number(r.gflops);
  line.Number(r.predicted_us);
  line.Number(r.floor_us);
  Error(r.error, line);
  Traffic(r.traffic, line);
  line.Text(KeyOf(r));
  line.Text(r.repro);
  for (const std::string& name : params) {
    const auto found =
        std::find_if(r.params.begin(), r.params.end(),
                     [&](const auto& param) { return param.first == name; });
    line.Text(found == r.params.end() ? "" : found->second);
  }
}

}  // namespace

std::string RecordsCsv(const Report& report) {
  const std::vector<std::string> params = ParamNames(report);
  std::string out;
  {
    Line line(out);
    for (const std::string_view name : {"launch",
                                        "started",
                                        "host",
                                        "label",
                                        "case",
                                        "variant",
                                        "backend",
                                        "ranks",
                                        "memory",
                                        "cadence",
                                        "native",
                                        "emulated",
                                        "verdict",
                                        "reason",
                                        "median_us",
                                        "interval_low_us",
                                        "interval_high_us",
                                        "p10_us",
                                        "p90_us",
                                        "min_us",
                                        "max_us",
                                        "samples",
                                        "operations_per_sample",
                                        "algbw_gbps",
                                        "busbw_gbps",
                                        "gflops",
                                        "predicted_us",
                                        "floor_us",
                                        "tier",
                                        "worst_ratio",
                                        "max_abs",
                                        "max_ulp",
                                        "bytes",
                                        "messages",
                                        "key",
                                        "repro"}) {
      line.Text(name);
    }
    for (const std::string& name : params) line.Text("param_" + name);
  }
  for (const Launch& launch : report.launches) {
    for (const Record& record : launch.records) {
      WriteRecord(launch, record, params, out);
    }
  }
  return out;
}

std::string ComparisonsCsv(const Report& report) {
  std::string out;
  {
    Line line(out);
    for (const std::string_view name :
         {"key",           "case",           "variant",
          "backend",       "params",         "ranks",
          "change",        "reason",         "base_us",
          "cand_us",       "effect",         "interval_low",
          "interval_high", "hodges_lehmann", "p",
          "sign_flip_p",   "adjusted_p",     "margin",
          "suspect",       "screened_pairs", "pairs",
          "more_pairs",    "more_seconds",   "base_launches",
          "cand_launches", "repro"}) {
      line.Text(name);
    }
  }
  for (const Comparison& c : report.comparisons) {
    Line line(out);
    line.Text(c.key);
    line.Text(c.case_name);
    line.Text(c.variant);
    line.Text(c.backend);
    line.Text(c.params);
    line.Integer(c.ranks);
    line.Text(Name(c.change));
    line.Text(c.reason);
    for (const double value :
         {c.base_us, c.cand_us, c.effect, c.interval_low, c.interval_high,
          c.hodges_lehmann, c.p, c.sign_flip_p, c.adjusted_p, c.margin}) {
      line.Number(value);
    }
    line.Bool(c.suspect);
    line.Integer(c.screened_pairs);
    line.Integer(c.pairs);
    if (c.more_pairs.has_value()) {
      line.Integer(*c.more_pairs);
    } else {
      line.Empty(1);
    }
    line.Number(c.more_seconds);
    line.Integer(static_cast<int64_t>(c.base_launches.size()));
    line.Integer(static_cast<int64_t>(c.cand_launches.size()));
    line.Text(c.repro);
  }
  return out;
}

}  // namespace shardproof
