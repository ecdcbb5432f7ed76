#include "reports/exports/openmetrics.h"

#include <fmt/format.h>

#include <optional>
#include <set>
#include <string_view>
#include <utility>
#include <vector>

#include "reports/exports/text.h"

namespace shardproof {
namespace {

constexpr double kMicro = 1e-6;
constexpr double kGiga = 1e9;

using Labels = std::vector<std::pair<std::string_view, std::string_view>>;

std::string LabelValue(std::string_view text) {
  std::string out;
  for (const char c : Printable(text)) {
    if (c == '\\' || c == '"') out += '\\';
    if (c == '\n') {
      out += "\\n";
    } else if (c == '\r') {
      out += kReplacement;  // Readers of lines would end one here.
    } else {
      out += c;
    }
  }
  return out;
}

std::string LabelText(const Labels& labels) {
  std::string out = "{";
  for (const auto& [name, value] : labels) {
    if (out.size() > 1) out += ',';
    out += fmt::format("{}=\"{}\"", name, LabelValue(value));
  }
  return out + '}';
}

// OpenMetrics writes infinity as +Inf.
std::string Value(double value) {
  std::string text = NumberText(value);
  return text == "Inf" ? "+Inf" : text;
}

// One metric family: written where it has a sample.
class Family {
 public:
  Family(std::string name, std::string_view unit, std::string_view help,
         std::string_view type = "gauge")
      : name_(std::move(name)), sample_name_(name_) {
    text_ = fmt::format("# TYPE {} {}\n", name_, type);
    if (!unit.empty()) text_ += fmt::format("# UNIT {} {}\n", name_, unit);
    text_ += fmt::format("# HELP {} {}\n", name_, help);
    if (type == "info") sample_name_ += "_info";
  }

  void Add(const std::string& labels, double value) {
    if (!seen_.insert(labels).second) return;
    text_ += fmt::format("{}{} {}\n", sample_name_, labels, Value(value));
  }
  void Add(const std::string& labels, const std::optional<double>& value,
           double scale) {
    if (value.has_value()) Add(labels, *value * scale);
  }
  std::string Text() const { return seen_.empty() ? "" : text_; }

 private:
  std::string name_, sample_name_, text_;
  std::set<std::string> seen_;
};

std::string RecordLabels(const std::string& launch, const Record& r) {
  const std::string ranks = std::to_string(r.ranks);
  const std::string params = ParamsText(r);
  return LabelText(
      {{"launch", launch},
       {"case", r.case_name},
       {"variant", r.variant},
       {"backend", r.backend},
       {"ranks", ranks},
       {"params", params},
       {"memory", r.memory},
       {"cadence", r.time_us.has_value() ? r.time_us->cadence : ""},
       {"emulated", r.emulated ? "true" : "false"}});
}

bool Ran(Verdict verdict) {
  return verdict != Verdict::kUnsupported && verdict != Verdict::kNotBuilt;
}

std::string Runs(const Report& report) {
  Family runs("shardproof_run", "", "What each launch was.", "info");
  for (size_t i = 0; i < report.launches.size(); ++i) {
    const Launch& l = report.launches[i];
    const Fingerprint& f = l.fingerprint;
    runs.Add(LabelText({{"launch", std::to_string(i)},
                        {"file", l.name},
                        {"started", l.started},
                        {"host", f.host},
                        {"cpu", f.cpu},
                        {"mpi", f.mpi},
                        {"cuda", f.cuda},
                        {"nccl", f.nccl},
                        {"version", f.version},
                        {"label", f.label}}),
             1);
  }
  return runs.Text();
}

std::string Records(const Report& report) {
  Family passed("shardproof_passed", "",
                "1 where the answer was right, 0 where it was not or where "
                "nobody knows.");
  Family ratio("shardproof_error_bound_ratio", "ratio",
               "The largest error over what its bound allows.");
  Family median("shardproof_median_seconds", "seconds",
                "Median time of one operation, the slowest rank.");
  Family p10("shardproof_p10_seconds", "seconds",
             "10th percentile of the time of one operation.");
  Family p90("shardproof_p90_seconds", "seconds",
             "90th percentile of the time of one operation.");
  Family algbw("shardproof_algbw_bytes_per_second", "bytes_per_second",
               "Bytes of the operation over its time.");
  Family busbw("shardproof_busbw_bytes_per_second", "bytes_per_second",
               "Bandwidth that the slowest link had, as nccl-tests counts.");
  Family flops("shardproof_flops_per_second", "flops_per_second",
               "Floating-point operations over time.");
  Family predicted("shardproof_predicted_seconds", "seconds",
                   "What the cost model says of the time.");
  Family floor("shardproof_floor_seconds", "seconds",
               "What no implementation can be faster than.");
  for (size_t i = 0; i < report.launches.size(); ++i) {
    for (const Record& r : report.launches[i].records) {
      if (!Ran(r.verdict)) continue;
      const std::string labels = RecordLabels(std::to_string(i), r);
      passed.Add(labels, r.verdict == Verdict::kPassed ? 1 : 0);
      if (r.error.has_value()) ratio.Add(labels, r.error->worst_ratio);
      if (r.time_us.has_value()) {
        median.Add(labels, r.time_us->median * kMicro);
        p10.Add(labels, r.time_us->p10 * kMicro);
        p90.Add(labels, r.time_us->p90 * kMicro);
      }
      algbw.Add(labels, r.algbw_gbps, kGiga);
      busbw.Add(labels, r.busbw_gbps, kGiga);
      flops.Add(labels, r.gflops, kGiga);
      predicted.Add(labels, r.predicted_us, kMicro);
      floor.Add(labels, r.floor_us, kMicro);
    }
  }
  return passed.Text() + ratio.Text() + median.Text() + p10.Text() +
         p90.Text() + algbw.Text() + busbw.Text() + flops.Text() +
         predicted.Text() + floor.Text();
}

std::string Comparisons(const Report& report) {
  Family effect("shardproof_comparison_effect_ratio", "ratio",
                "How much slower the candidate is: 0.05 is 5 percent.");
  Family low("shardproof_comparison_interval_low_ratio", "ratio",
             "Lower end of the effect's 95 percent interval.");
  Family high("shardproof_comparison_interval_high_ratio", "ratio",
              "Upper end of the effect's 95 percent interval.");
  Family margin("shardproof_comparison_margin_ratio", "ratio",
                "Effects below this one are of no interest.");
  Family p("shardproof_comparison_adjusted_p", "",
           "p of the effect after Benjamini-Hochberg.");
  Family change("shardproof_comparison_change", "",
                "1 for the verdict, which is a label.");
  for (const Comparison& c : report.comparisons) {
    const std::string ranks = std::to_string(c.ranks);
    // The key, since memory and cadence are in it only.
    Labels names = {{"key", c.key},         {"case", c.case_name},
                    {"variant", c.variant}, {"backend", c.backend},
                    {"ranks", ranks},       {"params", c.params}};
    const std::string labels = LabelText(names);
    effect.Add(labels, c.effect);
    low.Add(labels, c.interval_low);
    high.Add(labels, c.interval_high);
    margin.Add(labels, c.margin);
    p.Add(labels, c.adjusted_p);
    names.emplace_back("change", Name(c.change));
    change.Add(LabelText(names), 1);
  }
  return effect.Text() + low.Text() + high.Text() + margin.Text() + p.Text() +
         change.Text();
}

std::string Gate(const Report& report) {
  std::string out;
  if (report.gate.has_value()) {
    Family code("shardproof_gate_exit_code", "",
                "What the gate told its caller; 0 is a pass.");
    code.Add("", report.gate->exit_code);
    Family findings("shardproof_gate_findings", "",
                    "What the gate holds against the candidate.");
    int counted = 0;
    int quarantined = 0;
    for (const auto& f : report.gate->findings) {
      ++(f.quarantined ? quarantined : counted);
    }
    findings.Add(R"({quarantined="false"})", counted);
    findings.Add(R"({quarantined="true"})", quarantined);
    out += code.Text() + findings.Text();
  }
  if (report.calibration.has_value() && report.calibration->null_verdicts > 0) {
    const Calibration& c = *report.calibration;
    Family alarms("shardproof_false_alarm_ratio", "ratio",
                  "Share of false alarms, same against same, on this machine.");
    alarms.Add("", static_cast<double>(c.false_alarms) / c.null_verdicts);
    Family noise("shardproof_noise_ratio", "ratio",
                 "95th percentile of the effect, same against same.");
    noise.Add("", c.noise);
    out += alarms.Text() + noise.Text();
  }
  return out;
}

}  // namespace

std::string OpenMetrics(const Report& report) {
  return Runs(report) + Records(report) + Comparisons(report) + Gate(report) +
         "# EOF\n";
}

}  // namespace shardproof
