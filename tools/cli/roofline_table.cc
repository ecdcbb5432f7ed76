#include "tools/cli/roofline_table.h"

#include <fmt/format.h>

#include <algorithm>
#include <iterator>

#include "tools/cli/table.h"

namespace shardproof {
namespace {

std::string Number(const std::optional<double>& value, double divisor) {
  if (!value.has_value()) return "-";
  const double v = *value / divisor;
  return v < 100 ? fmt::format("{:.1f}", v) : fmt::format("{:.0f}", v);
}

}  // namespace

std::string RooflineTable::Sizes(const Record& record) {
  static constexpr const char* kShared[] = {"cache", "gpu"};
  std::string text;
  for (const auto& [name, value] : record.params) {
    if (std::ranges::find(kShared, name) != std::end(kShared)) continue;
    if (value == "false") continue;
    // What is no size says what it is; the others are told apart by their names in the result file.
    const bool names = name == "k" || name == "vocabulary" || name == "of";
    text += fmt::format("{}{}", text.empty() ? "" : " ",
                        value == "true" ? name
                        : names         ? fmt::format("{}={}", name, value)
                                        : value);
  }
  return text;
}

void RooflineTable::Add(const Record& record) {
  std::vector<std::string> row = {record.case_name, record.variant,
                                  Sizes(record)};
  if (record.time_us.has_value()) {
    const Record::Time& time = *record.time_us;
    times_ = true;
    row.push_back(TimeText(time.median));
    row.push_back(Number(record.algbw_gbps, 1));
    row.push_back(Number(record.gflops, 1e3));
    row.push_back(
        record.floor_us.has_value() && time.median > 0
            ? fmt::format("{:.0f}%", 100 * *record.floor_us / time.median)
            : "-");
    row.emplace_back(time.flags.empty() ? "" : "below");
    for (const std::string& flag : time.flags) {
      notes_.push_back(fmt::format("below: {} {} {}: {}", record.case_name,
                                   record.variant, Sizes(record), flag));
    }
  } else {
    row.insert(row.end(), {"-", "-", "-", "-", ""});
    row.back() = std::string(Name(record.verdict));
    if (!record.reason.empty()) {
      notes_.push_back(fmt::format("{}: {} {} {}: {}", Name(record.verdict),
                                   record.case_name, record.variant,
                                   Sizes(record), record.reason));
    }
  }
  rows_.push_back(std::move(row));
}

std::string RooflineTable::Text() const {
  std::vector<std::string> header = {"case",       "variant", "sizes",
                                     "time",       "GB/s",    "TFLOP/s",
                                     "of ceiling", "verdict"};
  // Emulated: between the sizes and the verdict there is nothing.
  const auto shown = [&](std::vector<std::string> row) {
    if (!times_) row.erase(row.begin() + 3, row.end() - 1);
    return row;
  };
  Table table(shown(std::move(header)));
  for (const auto& row : rows_) table.Add(shown(row));
  std::string text = table.Text();
  for (const std::string& note : notes_) text += note + "\n";
  return text;
}

}  // namespace shardproof
