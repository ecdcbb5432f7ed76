#include "reports/html/html.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <map>

#include "reports/html/embedded.h"
#include "reports/html/pages.h"
#include "reports/key.h"

namespace shardproof {
namespace html {
namespace {

struct Sign {
  std::string_view kind, symbol, word, tone;
};
constexpr auto kSigns = std::to_array<Sign>({
    {"passed", "\u2713", "passed", "good"},
    {"incorrect", "\u2715", "wrong", "bad"},
    {"suspect", "?", "suspect", "warn"},
    {"failed", "\u2715", "failed", "bad"},
    {"unsupported", "\u2013", "unsupported", "quiet"},
    {"not_built", "\u2013", "not built", "quiet"},
    {"regressed", "\u25b2", "slower", "bad"},
    {"improved", "\u25bc", "faster", "good"},
    {"equivalent", "=", "the same", "good"},
    {"inconclusive", "?", "inconclusive", "warn"},
    {"invalid", "!", "invalid", "warn"},
    {"missing", "!", "missing", "warn"},
});

// How bad: what is shown for a key of which launches differ.
int Badness(Verdict verdict) {
  switch (verdict) {
    case Verdict::kIncorrect:
      return 5;
    case Verdict::kFailed:
      return 4;
    case Verdict::kSuspect:
      return 3;
    case Verdict::kPassed:
      return 2;
    case Verdict::kUnsupported:
      return 1;
    case Verdict::kNotBuilt:
      break;
  }
  return 0;
}

void Section(Page page, std::string_view id, std::string_view name,
             void (*content)(Page)) {
  page.w.Write(
      "<section class=\"page\" id=\"{}\" aria-labelledby=\"{}-title\">\n"
      "<h2 id=\"{}-title\">{}</h2>\n",
      id, id, id, name);
  content(page);
  page.w.Write("</section>\n");
}

void Header(Page page) {
  const Report& report = page.report;
  page.w.Write("<header>\n<div><h1>{}</h1>\n<p class=\"meta\">", report.title);
  if (!report.written.empty()) page.w.Write("Written {}", report.written);
  if (!report.launches.empty()) {
    const Fingerprint& f = report.launches.back().fingerprint;
    size_t records = 0;
    for (const Launch& l : report.launches) records += l.records.size();
    page.w.Write("{}{} of {}", report.written.empty() ? "" : " \u00b7 ",
                 Counted(records, "record"),
                 report.launches.size() == 1
                     ? "one launch"
                     : fmt::format("{} launches", report.launches.size()));
    if (!f.host.empty()) page.w.Write(" on {}", f.host);
    if (!f.label.empty()) page.w.Write(" \u00b7 {}", f.label);
  }
  page.w.Write(
      "</p></div>\n<nav aria-label=\"Pages\">"
      "<a href=\"#gate\">Gate</a><a href=\"#interconnect\">Interconnect</a>"
      "<a href=\"#kernel\">Kernels</a><a href=\"#layers\">Layers</a>"
      "</nav>\n</header>\n");
}

}  // namespace

Markup Badge(std::string_view kind) {
  for (const Sign& s : kSigns) {
    if (s.kind == kind) {
      return Fragment(
          "<span class=\"badge {}\"><span aria-hidden=\"true\">{}</span> "
          "{}</span>",
          s.tone, s.symbol, s.word);
    }
  }
  return Fragment("<span class=\"badge warn\">{}</span>", kind);
}

void Missing(Writer& w, std::string_view what, std::string_view command) {
  w.Write("<p class=\"missing\">{} <code class=\"command\">{}</code></p>\n",
          what, command);
}

std::vector<Measured> ByKey(const Report& report) {
  std::vector<Measured> all;
  std::map<std::string, size_t, std::less<>> index;
  for (size_t l = 0; l < report.launches.size(); ++l) {
    for (const Record& record : report.launches[l].records) {
      std::string key = KeyOf(record);
      const auto [found, is_new] = index.try_emplace(key, all.size());
      if (is_new) all.push_back({.key = std::move(key)});
      Measured& m = all[found->second];
      m.in.push_back({l, &record});
      // Of equals the last: the newest launch.
      if (m.shown == nullptr ||
          Badness(record.verdict) >= Badness(m.shown->verdict)) {
        m.shown = &record;
      }
    }
  }
  for (Measured& m : all) {
    std::vector<double> times;
    for (const Measured::In& in : m.in) {
      if (in.record->time_us.has_value() &&
          std::isfinite(in.record->time_us->median)) {
        times.push_back(in.record->time_us->median);
      }
    }
    std::sort(times.begin(), times.end());
    const size_t n = times.size();
    m.median_us = n == 0 ? std::numeric_limits<double>::quiet_NaN()
                         : (times[(n - 1) / 2] + times[n / 2]) / 2;
  }
  return all;
}

const Comparison* FindComparison(const Report& report, std::string_view key) {
  for (const Comparison& c : report.comparisons) {
    if (c.key == key) return &c;
  }
  return nullptr;
}

}  // namespace html

std::string Html(const Report& report) {
  html::Writer w;
  html::Charts charts;
  const html::Page page{report, w, charts};
  // Scripts and styles are known by their hashes; nothing else runs, and
  // nothing is fetched. Chart.js styles its canvas through the DOM, which a
  // policy allows.
  w.Write(
      "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n"
      "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src "
      "'none'; script-src {}; style-src {}; base-uri 'none'; form-action "
      "'none'\">\n"
      "<meta name=\"viewport\" content=\"width=device-width, "
      "initial-scale=1\">\n"
      "<meta name=\"color-scheme\" content=\"light dark\">\n"
      "<meta name=\"referrer\" content=\"no-referrer\">\n"
      "<title>{}</title>\n<style>{}</style>\n<script>{}</script>\n</head>\n"
      "<body>\n",
      html::Markup{std::string(html::ScriptHashes())},
      html::Markup{std::string(html::StyleHash())}, report.title,
      html::Markup{std::string(html::Style())},
      html::Markup{std::string(html::ThemeScript())});
  html::Header(page);
  w.Write("<main>\n");
  html::Section(page, "gate", "Gate", &html::GatePage);
  html::Section(page, "interconnect", "Interconnect", &html::InterconnectPage);
  html::Section(page, "kernel", "Kernels", &html::KernelPage);
  html::Section(page, "layers", "Layers", &html::LayersPage);
  w.Write(
      "</main>\n<footer>Made by Shardproof. Charts: Chart.js, MIT licence. "
      "This file asks for nothing from the network.</footer>\n");
  charts.WriteData(w);
  w.Write("<script>{}</script>\n<script>{}</script>\n</body>\n</html>\n",
          html::Markup{std::string(html::ChartLibrary())},
          html::Markup{std::string(html::Script())});
  return w.Take().html;
}

}  // namespace shardproof
