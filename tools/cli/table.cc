#include "tools/cli/table.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cctype>
#include <cmath>

namespace shardproof {
namespace {

bool IsNumber(const std::string& cell) {
  return !cell.empty() &&
         (std::isdigit(static_cast<unsigned char>(cell[0])) || cell == "-");
}

std::string Optional(const std::optional<double>& value, const char* format) {
  return value.has_value() ? fmt::format(fmt::runtime(format), *value) : "-";
}

}  // namespace

std::string Table::Text() const {
  std::vector<size_t> widths;
  std::vector<bool> right;
  for (size_t i = 0; i < rows_.size(); ++i) {
    const auto& row = rows_[i];
    widths.resize(std::max(widths.size(), row.size()));
    right.resize(widths.size(), true);
    for (size_t j = 0; j < row.size(); ++j) {
      widths[j] = std::max(widths[j], row[j].size());
      if (i > 0 && !IsNumber(row[j])) right[j] = false;
    }
  }
  std::string text;
  for (const auto& row : rows_) {
    std::string line;
    for (size_t j = 0; j < row.size(); ++j) {
      if (j > 0) line += "  ";
      line += right[j] ? fmt::format("{:>{}}", row[j], widths[j])
                       : fmt::format("{:<{}}", row[j], widths[j]);
    }
    line.erase(line.find_last_not_of(' ') + 1);
    text += line + "\n";
  }
  return text;
}

std::string TimeText(double us) {
  if (!std::isfinite(us)) return "-";
  if (us < 1000) return fmt::format("{:.2f} us", us);
  if (us < 1e6) return fmt::format("{:.2f} ms", us / 1e3);
  return fmt::format("{:.2f} s", us / 1e6);
}

// The least time, and how much of the time taken it is.
static std::string FloorText(std::optional<double> floor_us, double median_us) {
  if (floor_us.value_or(0) <= 0 || median_us <= 0) return "-";
  return fmt::format("{} {:.0f}%", TimeText(*floor_us),
                     100 * *floor_us / median_us);
}

std::string BytesText(double bytes) {
  static constexpr const char* kUnits[] = {"B", "KiB", "MiB", "GiB", "TiB"};
  size_t unit = 0;
  while (bytes >= 1024 && unit + 1 < std::size(kUnits)) {
    bytes /= 1024;
    ++unit;
  }
  return unit == 0 ? fmt::format("{:.0f} B", bytes)
                   : fmt::format("{:.4g} {}", bytes, kUnits[unit]);
}

void VerifyTable::Add(const Record& record) {
  Line& line = lines_[{record.case_name, record.variant}];
  ++line.verdicts[record.verdict];
  ++line.ranks[record.ranks];
  if (record.error.has_value() && std::isfinite(record.error->worst_ratio)) {
    line.worst_ratio = std::max(line.worst_ratio, record.error->worst_ratio);
  }
  if (record.verdict == Verdict::kUnsupported && line.unsupported.empty()) {
    line.unsupported = record.reason;
  }
}

std::string VerifyTable::Text() const {
  Table table({"case", "variant", "ranks", "passed", "wrong", "unsupported",
               "worst error/bound"});
  for (const auto& [key, line] : lines_) {
    const auto count = [&line = line](Verdict v) {
      const auto found = line.verdicts.find(v);
      return found == line.verdicts.end() ? 0 : found->second;
    };
    std::vector<int> ranks;
    for (const auto& [n, times] : line.ranks) ranks.push_back(n);
    const int passed = count(Verdict::kPassed);
    const int unsupported =
        count(Verdict::kUnsupported) + count(Verdict::kNotBuilt);
    const int wrong = count(Verdict::kIncorrect) + count(Verdict::kSuspect) +
                      count(Verdict::kFailed);
    table.Add(
        {key.first, key.second, fmt::format("{}", fmt::join(ranks, ",")),
         fmt::format("{}", passed), fmt::format("{}", wrong),
         fmt::format("{}", unsupported),
         passed + wrong > 0 ? fmt::format("{:.2f}", line.worst_ratio) : "-"});
  }
  return table.Text();
}

std::string BenchTable::Text() const {
  std::vector<std::string> cases;
  std::map<std::string, double> native;  // Median by case and parameters.
  const auto point = [](const Record& r) {
    return fmt::format("{} {} {} {}", r.case_name, r.ranks, r.memory,
                       ParamsText(r));
  };
  for (const Record& r : records_) {
    if (std::find(cases.begin(), cases.end(), r.case_name) == cases.end()) {
      cases.push_back(r.case_name);
    }
    if (r.native && r.time_us.has_value()) {
      native[point(r)] = r.time_us->median;
    }
  }
  std::string text;
  for (const std::string& name : cases) {
    Table table({"parameters", "ranks", "variant", "median", "+-", "algbw GB/s",
                 "busbw GB/s", "GFLOP/s", "floor", "vs native", "verdict"});
    for (const Record& r : records_) {
      if (r.case_name != name) continue;
      if (r.verdict != Verdict::kPassed || !r.time_us.has_value()) {
        if (r.verdict == Verdict::kUnsupported) continue;
        table.Add({ParamsText(r), fmt::format("{}", r.ranks), r.variant, "-",
                   "-", "-", "-", "-", "-", "-", std::string(Name(r.verdict))});
        continue;
      }
      const Record::Time& t = *r.time_us;
      const auto base = native.find(point(r));
      table.Add(
          {ParamsText(r), fmt::format("{}", r.ranks), r.variant,
           TimeText(t.median),
           fmt::format("{:.1f}%",
                       t.median > 0
                           ? 50 * (t.interval_high - t.interval_low) / t.median
                           : 0.0),
           Optional(r.algbw_gbps, "{:.2f}"), Optional(r.busbw_gbps, "{:.2f}"),
           Optional(r.gflops, "{:.1f}"), FloorText(r.floor_us, t.median),
           base == native.end() || r.native
               ? "-"
               : fmt::format("{:.2f}x", base->second / t.median),
           fmt::format("passed{}{}", t.flags.empty() ? "" : ", noisy",
                       r.emulated ? ", emulated" : "")});
    }
    if (table.size() > 0) {
      text += fmt::format("\n{}\n{}", name, table.Text());
    }
  }
  return text;
}

void Summary::Add(const Record& record) {
  ++counts_[record.verdict];
  switch (record.verdict) {
    case Verdict::kPassed:
      break;
    case Verdict::kUnsupported:
    case Verdict::kNotBuilt:
      ++unsupported_[record.reason];
      break;
    default:
      failures_.push_back(record);
  }
}

int Summary::count(Verdict verdict) const {
  const auto found = counts_.find(verdict);
  return found == counts_.end() ? 0 : found->second;
}

std::string Summary::Text(size_t most) const {
  std::string text;
  for (size_t i = 0; i < std::min(most, failures_.size()); ++i) {
    const Record& r = failures_[i];
    text +=
        fmt::format("{}: {} {} ranks={} {}\n  {}\n", Name(r.verdict),
                    r.case_name, r.variant, r.ranks, ParamsText(r), r.reason);
    if (r.error.has_value() && !r.error->diagnosis.empty()) {
      text += fmt::format("  {}\n", r.error->diagnosis);
    }
    if (!r.repro.empty()) text += fmt::format("  {}\n", r.repro);
  }
  if (failures_.size() > most) {
    text += fmt::format("... and {} more, in the result file\n",
                        failures_.size() - most);
  }
  for (const auto& [reason, times] : unsupported_) {
    text += fmt::format("unsupported {} times: {}\n", times, reason);
  }
  std::vector<std::string> parts;
  for (const Verdict v :
       {Verdict::kPassed, Verdict::kIncorrect, Verdict::kSuspect,
        Verdict::kFailed, Verdict::kUnsupported, Verdict::kNotBuilt}) {
    if (v == Verdict::kPassed || count(v) > 0) {
      parts.push_back(fmt::format("{} {}", count(v), Name(v)));
    }
  }
  return text + fmt::format("{}\n", fmt::join(parts, ", "));
}

}  // namespace shardproof
