// Every pair of ranks: a table that is coloured by how slow a link is, with the
// number in each cell.
#include <algorithm>
#include <cmath>
#include <set>
#include <utility>

#include "reports/html/pages.h"
#include "reports/html/table.h"

namespace shardproof::html {
namespace {

constexpr int kMostRanks = 64;
constexpr size_t kMostMatrices = 24;
constexpr int kShades = 8;

double At(const PairMatrix& m, int from, int to) {
  const auto index = static_cast<size_t>(from) * static_cast<size_t>(m.ranks) +
                     static_cast<size_t>(to);
  return index < m.median_us.size() ? m.median_us[index] : std::nan("");
}

struct Extent {
  double low = 0, high = 0;
};

Extent ExtentOf(const PairMatrix& m, int shown) {
  Extent e{INFINITY, -INFINITY};
  for (int from = 0; from < shown; ++from) {
    for (int to = 0; to < shown; ++to) {
      const double value = At(m, from, to);
      if (from == to || !std::isfinite(value) || value <= 0) continue;
      e.low = std::min(e.low, value);
      e.high = std::max(e.high, value);
    }
  }
  return e;
}

// On a logarithmic scale: links differ by factors.
int Shade(const Extent& e, double value) {
  if (!std::isfinite(value) || value <= 0 || e.high <= e.low) return 0;
  const double share = std::log(value / e.low) / std::log(e.high / e.low);
  return std::clamp(static_cast<int>(share * kShades), 0, kShades - 1);
}

bool IsSlow(const PairMatrix& m, int from, int to) {
  return std::any_of(m.slow.begin(), m.slow.end(), [&](const auto& s) {
    return s.from == from && s.to == to;
  });
}

void HeatMap(Writer& w, const PairMatrix& m) {
  const int shown = std::clamp(m.ranks, 0, kMostRanks);
  const Extent extent = ExtentOf(m, shown);
  const bool ms = extent.high >= 1e4;
  const std::string caption = fmt::format(
      "{} between {} ranks on {}{}, {}",
      m.bytes == 0
          ? "Latency"
          : "One message of " + BytesAsText(static_cast<double>(m.bytes)),
      m.ranks, Of(m.backend, m.machine),
      m.bidirectional ? ", both directions at once" : "",
      ms ? "ms" : "\u00b5s");
  w.Write(
      "<div class=\"scroll\" tabindex=\"0\" role=\"region\" "
      "aria-label=\"{}\">\n<table class=\"heat\"><caption>{}",
      caption, caption);
  if (shown < m.ranks) {
    w.Write(" <span class=\"note\">the first {} ranks</span>", shown);
  }
  w.Write("</caption>\n<thead><tr><th scope=\"col\">from \\ to</th>");
  const auto place = [&](int rank) {
    const auto r = static_cast<size_t>(rank);
    return r < m.places.size() ? m.places[r] : std::string();
  };
  for (int to = 0; to < shown; ++to) {
    w.Write("<th scope=\"col\" class=\"n\" title=\"{}\">{}</th>", place(to),
            to);
  }
  w.Write("</tr></thead>\n<tbody>\n");
  for (int from = 0; from < shown; ++from) {
    w.Write("<tr><th scope=\"row\" title=\"{}\">{}</th>", place(from), from);
    for (int to = 0; to < shown; ++to) {
      const double value = At(m, from, to);
      if (from == to) {
        w.Write("<td class=\"n none\">\u2013</td>");
      } else if (IsSlow(m, from, to)) {
        w.Write("<td class=\"n h{} slow\">\u25b2\u00a0{}</td>",
                Shade(extent, value), Significant(ms ? value / 1e3 : value));
      } else {
        w.Write("<td class=\"n h{}\">{}</td>", Shade(extent, value),
                Significant(ms ? value / 1e3 : value));
      }
    }
    w.Write("</tr>\n");
  }
  w.Write("</tbody></table></div>\n");
}

void SlowLinks(Writer& w, const PairMatrix& m) {
  if (!m.slow.empty()) {
    w.Write("<ul class=\"findings\">\n");
    for (const PairMatrix::Slow& s : m.slow) {
      w.Write(
          "<li>\u25b2 The link {} \u2192 {} ({}) takes {}; the median of its "
          "class is {} (z = {}).</li>\n",
          s.from, s.to, s.link_class, TimeAsText(s.median_us),
          TimeAsText(s.class_median_us), Significant(s.z));
    }
    w.Write("</ul>\n");
  }
  if (m.asymmetric.empty()) return;
  Table table("Links whose directions differ",
              {{"ranks"},
               {"one way", Column::kTime},
               {"back", Column::kTime},
               {"back against one way", Column::kShare}});
  for (const PairMatrix::Asymmetry& a : m.asymmetric) {
    table.Add({fmt::format("{} \u2194 {}", a.a, a.b), a.a_to_b_us, a.b_to_a_us,
               a.b_to_a_us / a.a_to_b_us - 1});
  }
  table.Write(w);
}

// Of each machine once.
void Places(Writer& w, const std::vector<PairMatrix>& p2p) {
  std::set<std::string> shown;
  for (const PairMatrix& m : p2p) {
    if (!shown.insert(m.machine).second) continue;
    Table table(m.machine.empty() ? "Where the ranks run"
                                  : "Where the ranks run on " + m.machine,
                {{"rank", Column::kWhole}, {"place"}}, Table::kPlain);
    for (size_t r = 0; r < std::min<size_t>(m.places.size(), kMostRanks); ++r) {
      table.Add({static_cast<double>(r), m.places[r]});
    }
    table.Write(w);
  }
}

}  // namespace

void PairSection(Page page) {
  const auto& p2p = page.report.interconnect.p2p;
  page.w.Write("<h3>Every pair of ranks</h3>\n");
  if (p2p.empty()) {
    Missing(page.w, "The links have not been measured one by one. To do so:",
            "shardproof p2p --json p2p.json");
    return;
  }
  page.w.Write(
      "<p>Darker is slower, on a logarithmic scale from the fastest "
      "to the slowest link of the table. \u25b2 with a border: slow "
      "within its class of links.</p>\n");
  for (size_t i = 0; i < std::min(p2p.size(), kMostMatrices); ++i) {
    HeatMap(page.w, p2p[i]);
    SlowLinks(page.w, p2p[i]);
  }
  Places(page.w, p2p);
}

}  // namespace shardproof::html
