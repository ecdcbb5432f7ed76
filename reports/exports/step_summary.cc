#include "reports/exports/step_summary.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <string_view>
#include <utility>
#include <vector>

#include "reports/exports/text.h"
#include "reports/key.h"

namespace shardproof {
namespace {

// Of one cell, before it is escaped (at most six bytes for one).
constexpr size_t kCellBytes = 400;
// Of one table with its heading. There are four, and the rest is short.
constexpr size_t kTableBytes = kStepSummaryBytes / 5;

// Text that Markdown and HTML take for what it is, on one line.
std::string Plain(std::string_view text, size_t most = kCellBytes) {
  std::string out;
  for (const char c : Printable(Shortened(text, most))) {
    const auto code = static_cast<unsigned char>(c);
    const bool alphanumeric = (c >= '0' && c <= '9') ||
                              (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
    if (c == '\n' || c == '\r' || c == '\t') {
      out += ' ';
    } else if (alphanumeric || code >= 0x80 || c == ' ' || c == ',' ||
               c == '/' || c == '%') {
      out += c;
    } else {
      out += fmt::format("&#{};", static_cast<int>(code));
    }
  }
  return out;
}

std::string Code(std::string_view text) {
  return text.empty() ? "" : "<code>" + Plain(text) + "</code>";
}

// A table that stops before it is too large.
class Table {
 public:
  Table(std::string_view heading, std::vector<std::string_view> columns)
      : heading_(heading), columns_(std::move(columns)) {}

  void Row(const std::vector<std::string>& cells) {
    std::string row = "|";
    for (const std::string& cell : cells) row += " " + cell + " |";
    row += '\n';
    if (rows_.size() + row.size() > kTableBytes) full_ = true;
    if (full_) {
      ++left_out_;
    } else {
      rows_ += row;
    }
  }

  std::string Text() const {
    if (rows_.empty() && left_out_ == 0) return "";
    std::string out = fmt::format("### {}\n\n|", heading_);
    for (const std::string_view column : columns_) {
      out += fmt::format(" {} |", column);
    }
    out += "\n|";
    for (size_t i = 0; i < columns_.size(); ++i) out += " --- |";
    out += '\n' + rows_ + '\n';
    if (left_out_ > 0) out += fmt::format("and {} more\n\n", left_out_);
    return out;
  }

 private:
  std::string_view heading_;
  std::vector<std::string_view> columns_;
  std::string rows_;
  bool full_ = false;
  int left_out_ = 0;
};

std::string Percent(double share) {
  return std::isfinite(share) ? fmt::format("{:+.1f}%", 100 * share)
                              : NumberText(share);
}

std::string Us(double us) {
  return std::isfinite(us) ? fmt::format("{:.5g}", us) : NumberText(us);
}

// Wrong answers before those that nobody knows.
int Badness(Verdict verdict) {
  constexpr std::array<int, 6> kOrder = {0, 5, 3, 4, 1, 1};
  return kOrder[static_cast<size_t>(verdict)];
}

int Badness(Change change) {
  constexpr std::array<int, 5> kOrder = {4, 5, 1, 0, 3};
  return kOrder[static_cast<size_t>(change)];
}

std::string Findings(const Report& report) {
  Table table("Findings", {"what", "case", "reason", "reproduce"});
  Table quarantined("Quarantined", {"what", "case", "reason", "quarantine"});
  if (report.gate.has_value()) {
    for (const auto& f : report.gate->findings) {
      if (f.quarantined) {
        quarantined.Row(
            {Plain(f.kind), Code(f.key), Plain(f.reason), Plain(f.quarantine)});
      } else {
        table.Row({Plain(f.kind), Code(f.key), Plain(f.reason), Code(f.repro)});
      }
    }
  } else {
    std::vector<const Record*> bad;
    for (const Launch& launch : report.launches) {
      for (const Record& r : launch.records) {
        if (Badness(r.verdict) > 1) bad.push_back(&r);
      }
    }
    std::stable_sort(bad.begin(), bad.end(),
                     [](const Record* a, const Record* b) {
                       return Badness(a->verdict) > Badness(b->verdict);
                     });
    for (const Record* r : bad) {
      table.Row({std::string(Name(r->verdict)), Code(KeyOf(*r)),
                 Plain(r->reason), Code(r->repro)});
    }
  }
  return table.Text() + quarantined.Text();
}

std::string Comparisons(const Report& report) {
  Table table("Comparisons",
              {"change", "case", "base us", "candidate us", "effect",
               "95% interval", "adjusted p", "reason"});
  std::vector<const Comparison*> worst;
  for (const Comparison& c : report.comparisons) worst.push_back(&c);
  // By verdict, then by effect; one that is not a number comes first.
  const auto size = [](const Comparison* c) {
    return std::isnan(c->effect) ? HUGE_VAL : std::abs(c->effect);
  };
  std::stable_sort(worst.begin(), worst.end(),
                   [&](const Comparison* a, const Comparison* b) {
                     return std::pair(Badness(a->change), size(a)) >
                            std::pair(Badness(b->change), size(b));
                   });
  for (const Comparison* c : worst) {
    table.Row({std::string(Name(c->change)), Code(c->key), Us(c->base_us),
               Us(c->cand_us), Percent(c->effect),
               fmt::format("{} to {}", Percent(c->interval_low),
                           Percent(c->interval_high)),
               fmt::format("{:.2g}", c->adjusted_p), Plain(c->reason)});
  }
  return table.Text();
}

std::string Tally(const Report& report) {
  std::array<int, 6> counts = {};
  int total = 0;
  for (const Launch& launch : report.launches) {
    for (const Record& r : launch.records) {
      ++counts[static_cast<size_t>(r.verdict)];
      ++total;
    }
  }
  if (total == 0) return "No records.\n\n";
  std::string out = fmt::format("{} records:", total);
  for (size_t i = 0; i < counts.size(); ++i) {
    if (counts[i] == 0) continue;
    out += fmt::format("{} {} {}", out.back() == ':' ? "" : ",", counts[i],
                       Name(static_cast<Verdict>(i)));
  }
  std::replace(out.begin(), out.end(), '_', ' ');
  return out + ".\n\n";
}

std::string LeftOut(const Report& report) {
  Table table("Did not run", {"launch", "what"});
  for (const Launch& launch : report.launches) {
    for (const std::string& what : launch.left_out) {
      table.Row({Plain(launch.name), Plain(what)});
    }
    if (!launch.complete) {
      table.Row({Plain(launch.name),
                 launch.interrupted ? "interrupted" : "not complete"});
    }
  }
  return table.Text();
}

}  // namespace

std::string StepSummary(const Report& report) {
  std::string out = fmt::format("## {}\n\n", Plain(report.title));
  if (report.gate.has_value()) {
    out += fmt::format("**{}** (exit code {})\n\n",
                       Plain(report.gate->headline), report.gate->exit_code);
  }
  out +=
      Tally(report) + Findings(report) + Comparisons(report) + LeftOut(report);
  if (report.gate.has_value()) {
    constexpr size_t kMostNotes = 20;
    const auto& notes = report.gate->notes;
    for (size_t i = 0; i < std::min(kMostNotes, notes.size()); ++i) {
      out += fmt::format("* {}\n", Plain(notes[i]));
    }
    if (notes.size() > kMostNotes) {
      out += fmt::format("* and {} more\n", notes.size() - kMostNotes);
    }
    if (!notes.empty()) out += '\n';
  }
  if (report.calibration.has_value()) {
    out += Plain(Sentence(*report.calibration)) + "\n";
  }
  return out;
}

}  // namespace shardproof
