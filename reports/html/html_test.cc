#include "reports/html/html.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <regex>
#include <set>
#include <string>

#include "reports/html/embedded.h"
#include "reports/html/testing/sample.h"

namespace shardproof {
namespace {

using html::ChartLibrary;
using html::Script;
using html::ThemeScript;

size_t Count(const std::string& text, std::string_view what) {
  size_t n = 0;
  for (size_t at = text.find(what); at != std::string::npos;
       at = text.find(what, at + what.size())) {
    ++n;
  }
  return n;
}

bool Has(const std::string& text, std::string_view what) {
  return text.find(what) != std::string::npos;
}

// The page without our own styles and scripts, which are the same always.
std::string WithoutOwn(std::string page) {
  for (const std::string_view own :
       {html::Style(), ThemeScript(), ChartLibrary(), Script()}) {
    const size_t at = page.find(own);
    EXPECT_NE(at, std::string::npos);
    if (at != std::string::npos) page.erase(at, own.size());
  }
  return page;
}

// Every tag of a page, and what is between them. Enough of HTML's grammar for
// what Html writes: attributes are in double quotes.
struct Parsed {
  std::vector<std::string> tags, attributes, texts;
};

Parsed Parse(const std::string& page) {
  Parsed parsed;
  size_t at = 0;
  while (at < page.size()) {
    const size_t open = std::min(page.find('<', at), page.size());
    parsed.texts.push_back(page.substr(at, open - at));
    if (open == page.size()) break;
    size_t end = open + 1;
    std::string tag;
    while (end < page.size() && page[end] != ' ' && page[end] != '>') {
      tag += page[end++];
    }
    bool quoted = false;
    std::string attributes;
    while (end < page.size() && (quoted || page[end] != '>')) {
      if (page[end] == '"') quoted = !quoted;
      attributes += page[end++];
    }
    parsed.tags.push_back(tag);
    parsed.attributes.push_back(attributes);
    at = end + 1;
  }
  return parsed;
}

std::string ChartData(const std::string& page) {
  const std::string open = "<script type=\"application/json\" id=\"charts\">";
  const size_t begin = page.find(open) + open.size();
  return page.substr(begin, page.find("</script>", begin) - begin);
}

TEST(Html, OfNothingSaysWhatBringsEachPage) {
  const std::string page = WithoutOwn(Html(Report{}));
  for (const char* command :
       {"shardproof run", "shardproof calibrate", "shardproof fit",
        "shardproof p2p", "shardproof scale", "shardproof history CASE",
        "shardproof ab", "shardproof explain CASE", "shardproof bench"}) {
    EXPECT_TRUE(Has(page, command)) << command;
  }
  for (const char* id : {"gate", "interconnect", "kernel", "layers"}) {
    EXPECT_TRUE(Has(page, std::string("<section class=\"page\" id=\"") + id));
    EXPECT_TRUE(Has(page, std::string("href=\"#") + id + "\""));
  }
}

TEST(Html, StatesWhatTheGateSays) {
  const std::string page = WithoutOwn(Html(testing::RichReport()));
  EXPECT_TRUE(Has(page, "FAILED: 1 wrong result, 4 slow-downs"));
  EXPECT_TRUE(Has(page, "Exit code <strong>1</strong>: a wrong result."));
  EXPECT_TRUE(Has(page, "rank 2 counted twice in chunks 1 to 2"));
  EXPECT_TRUE(Has(page, "y[3] on rank 1: 4.25 instead of 2.50"));
  EXPECT_TRUE(Has(page, "ada: known since the new kernel"));
  EXPECT_TRUE(Has(page, "the time budget was spent"));
  EXPECT_TRUE(Has(page, "needs a power of two of ranks"));
  EXPECT_TRUE(Has(page, "built without CUDA"));
  EXPECT_TRUE(Has(page, "31aa0be"));
  EXPECT_TRUE(Has(page, "<td class=\"n\">+5.10</td>"));  // Calibration.
}

TEST(Html, SaysThatRightAnswersAreSlower) {
  Report report;
  Launch launch;
  launch.records = {{.case_name = "collectives/x",
                     .variant = "ring",
                     .verdict = Verdict::kPassed}};
  report.launches = {launch};
  EXPECT_TRUE(Has(Html(report), "\u2713 Every answer that ran is right"));
  Comparison slower;
  slower.key = "collectives/x ring thread 4 count=7";
  slower.change = Change::kRegressed;
  report.comparisons = {slower};
  const std::string page = Html(report);
  EXPECT_TRUE(Has(page, "Every answer that ran is right, and 1 case slower"));
  EXPECT_TRUE(Has(page, "1 passed, 1 regressed."));
  EXPECT_FALSE(Has(page, "\u2713 Every answer"));
}

TEST(Html, StatesEffectIntervalAndCommandOfAComparison) {
  Report report;
  Comparison c;
  c.key = "collectives/x ring thread 4 count=7";
  c.params = "count=7";
  c.change = Change::kInconclusive;
  c.base_us = 10, c.cand_us = 10.4;
  c.effect = 0.04, c.interval_low = -0.012, c.interval_high = 0.094;
  c.margin = 0.02;
  c.more_pairs = 12, c.more_seconds = 180;
  c.repro = "shardproof ab --base a --filter 'x|y'";
  report.comparisons = {c};
  const std::string page = WithoutOwn(Html(report));
  EXPECT_TRUE(Has(page,
                  "<td class=\"n\">+4.00</td>"
                  "<td class=\"n\">[-1.20, +9.40]</td>"));
  EXPECT_TRUE(Has(page, "1 case not decided. At most 12 more pairs"));
  EXPECT_TRUE(Has(page, "in about 3.00 minutes"));
  EXPECT_TRUE(Has(page, "&#39;x|y&#39;"));
  const auto charts = nlohmann::json::parse(ChartData(page));
  ASSERT_EQ(charts.size(), 1U);
  EXPECT_EQ(charts[0]["bands"][0], nlohmann::json({-0.02, 0.02}));
  EXPECT_EQ(charts[0]["series"][0]["points"][0],
            nlohmann::json({0.04, 0, -0.012, 0.094}));
}

TEST(Html, FindsTheSliceThatIsSlower) {
  Report report;
  for (const char* dtype : {"f32", "bf16"}) {
    for (const int ranks : {2, 4, 8}) {
      for (const char* count : {"1", "2"}) {
        Comparison c;
        c.case_name = "c", c.variant = "ring", c.backend = "thread";
        c.ranks = ranks;
        c.params = std::string("dtype=") + dtype + " count=" + count;
        const bool slow = ranks == 8 && dtype[0] == 'b';
        c.change = slow ? Change::kRegressed : Change::kEquivalent;
        report.comparisons.push_back(c);
      }
    }
  }
  const std::string page = WithoutOwn(Html(report));
  EXPECT_TRUE(Has(page,
                  "<strong>dtype=bf16 and ranks=8</strong>, where 2 of "
                  "2 keys are slower; that is all of those"));
  EXPECT_TRUE(Has(page, "<td class=\"n h7\">1 of 1</td>"));
  EXPECT_TRUE(Has(page, "<td class=\"n h0\">0 of 1</td>"));
}

TEST(Html, StatesWhatIsKnownOfTheLinks) {
  const std::string page = WithoutOwn(Html(testing::RichReport()));
  EXPECT_TRUE(Has(page, "<td class=\"n h7 slow\">\u25b2\u00a061.0</td>"));
  EXPECT_TRUE(Has(page, "The link 1 \u2192 6 (between nodes) takes 61.0"));
  EXPECT_TRUE(Has(page, "From 122 KiB on, ring is faster than direct"));
  // 1 MiB in 118 us.
  EXPECT_TRUE(Has(page, "<td class=\"n\">8.89</td>"));
  EXPECT_TRUE(Has(page, "node1 core 2"));
  EXPECT_FALSE(Has(page, "NaN"));
}

TEST(Html, SaysNothingOfWhatWasNotPredicted) {
  Report report = testing::RichReport();
  for (Fit& f : report.interconnect.fits) {
    f.median_prediction_error = f.worst_prediction_error = std::nan("");
  }
  EXPECT_FALSE(Has(WithoutOwn(Html(report)), "NaN"));
}

TEST(Html, SetsTwoMachinesSideBySide) {
  Report report = testing::RichReport();
  EXPECT_FALSE(Has(Html(report), "Two machines side by side"));
  report.launches[1].fingerprint.cpu = "another";
  report.launches[1].fingerprint.host = "node-b";
  const std::string page = WithoutOwn(Html(report));
  EXPECT_TRUE(Has(page, "Two machines side by side"));
  EXPECT_TRUE(Has(page, "node-b <span class=\"unit\">"));
  EXPECT_FALSE(Has(page, "What a message costs on both machines"));
}

TEST(Html, SetsFitsOfTwoMachinesSideBySide) {
  Report report = testing::RichReport();
  report.launches[1].fingerprint.cpu = "another";
  report.launches[1].fingerprint.host = "node-b";
  std::vector<Fit>& fits = report.interconnect.fits;
  ASSERT_EQ(fits.size(), 2U);
  const std::string first = MachineNames(report.launches)[0];
  for (Fit& f : fits) f.machine = first;
  Fit other = fits[0];
  other.machine = "node-b";
  for (Fit::Piece& p : other.pieces) p.alpha_us.value *= 1.5;
  fits.push_back(other);
  const std::string page = WithoutOwn(Html(report));
  const size_t at = page.find("What a message costs on both machines");
  ASSERT_NE(at, std::string::npos);
  const std::string table = page.substr(at, page.find("</table>", at) - at);
  // Two pieces of one variant: the other one was fitted on one machine only.
  EXPECT_EQ(Count(table, "<tr>") - 1, 2U) << table;
  EXPECT_EQ(Count(table, "+50"), 2U) << table;
  EXPECT_FALSE(Has(table, "ring"));
  EXPECT_TRUE(Has(page, "mpi of node-b"));
  EXPECT_TRUE(Has(page, "8 ranks on mpi of node-b"));
}

TEST(Html, DrawsWhoHoldsWhat) {
  const std::string page = WithoutOwn(Html(testing::RichReport()));
  EXPECT_TRUE(Has(page, "layers/column_linear"));
  EXPECT_TRUE(Has(page, "f32[16, 32]"));
  EXPECT_TRUE(Has(page, "[0..16, 8..16]"));       // w on rank 1.
  EXPECT_TRUE(Has(page, "[0..8, 4..8+24..28]"));  // y on rank 1: zigzag.
  // Of three tensors on 4 ranks, two of one block and one of two.
  EXPECT_EQ(Count(page, "class=\"held\""), 4U + 4U + 8U);
  EXPECT_EQ(Count(page, "class=\"arrow\""), 3U * 4U);
  EXPECT_TRUE(Has(page, "What moves, 3 KiB in all"));
}

// What a browser would take for a tag or an attribute is ours.
TEST(Html, HasNoMarkupOfAnEnemy) {
  const std::string page = WithoutOwn(Html(testing::HostileReport()));
  const std::set<std::string> known = {
      "!DOCTYPE", "a",      "article", "aside",   "body",       "br",
      "caption",  "code",   "details", "div",     "figcaption", "figure",
      "footer",   "h1",     "h2",      "h3",      "h4",         "head",
      "header",   "html",   "li",      "line",    "main",       "meta",
      "nav",      "p",      "path",    "rect",    "script",     "section",
      "span",     "strong", "style",   "summary", "svg",        "table",
      "tbody",    "td",     "text",    "th",      "thead",      "title",
      "tr",       "ul"};
  const Parsed parsed = Parse(page);
  ASSERT_GT(parsed.tags.size(), 1000U);
  const std::regex names(R"re( ([A-Za-z0-9-]+)(="[^"]*")?)re");
  const std::set<std::string> known_attributes = {
      "aria-hidden", "aria-label", "aria-labelledby",
      "charset",     "class",      "colspan",
      "content",     "d",          "data-charts",
      "data-group",  "data-v",     "height",
      "href",        "html",       "http-equiv",
      "id",          "lang",       "name",
      "role",        "scope",      "tabindex",
      "title",       "type",       "viewBox",
      "width",       "x",          "x1",
      "x2",          "y",          "y1",
      "y2"};
  for (size_t i = 0; i < parsed.tags.size(); ++i) {
    std::string tag = parsed.tags[i];
    if (tag[0] == '/') tag = tag.substr(1);
    EXPECT_EQ(known.count(tag), 1U) << parsed.tags[i];
    std::string rest = parsed.attributes[i];
    if (!rest.empty() && rest.back() == '/') rest.pop_back();
    std::string understood;
    for (std::sregex_iterator a(rest.begin(), rest.end(), names), end; a != end;
         ++a) {
      EXPECT_EQ(known_attributes.count((*a)[1]), 1U)
          << parsed.tags[i] << rest.substr(0, 200);
      understood += a->str();
    }
    EXPECT_EQ(understood, rest) << parsed.tags[i];
    if (Has(rest, "href=")) {
      EXPECT_TRUE(rest.rfind(" href=\"#", 0) == 0) << rest;
    }
  }
  // One of data and three of code, of which WithoutOwn took the content.
  EXPECT_EQ(std::count(parsed.tags.begin(), parsed.tags.end(), "script"), 4);
}

TEST(Html, IsUtf8WhateverItIsGiven) {
  const std::string page = Html(testing::HostileReport());
  // Which throws at anything else.
  EXPECT_NO_THROW(nlohmann::json(page).dump());
  EXPECT_FALSE(Has(page, "\u202E"));
  EXPECT_FALSE(Has(page, std::string_view("\0", 1)));
}

TEST(Html, KeepsDataOfAnEnemyInsideTheScriptOfData) {
  const std::string page = Html(testing::HostileReport());
  const std::string data = ChartData(page);
  EXPECT_FALSE(Has(data, "<"));
  EXPECT_TRUE(Has(data, "\\u003cimg"));
  const auto charts = nlohmann::json::parse(data);
  EXPECT_GT(charts.size(), 3U);
  // Names come out as they went in.
  EXPECT_TRUE(Has(charts.dump(), "<img src=x onerror="));
}

TEST(Html, AllowsNoScriptButItsOwn) {
  const std::string page = Html(testing::RichReport());
  const std::string hashes(html::ScriptHashes());
  EXPECT_EQ(Count(hashes, "'sha256-"), 3U);
  EXPECT_TRUE(Has(page, "default-src 'none'; script-src " + hashes +
                            "; style-src " + std::string(html::StyleHash())));
  EXPECT_FALSE(Has(WithoutOwn(page), "unsafe"));
  EXPECT_FALSE(Has(WithoutOwn(page), " style="));
  EXPECT_TRUE(Has(page, "Released under the MIT License"));
}

TEST(Html, AsksForNothingFromTheNetwork) {
  const std::string page = WithoutOwn(Html(testing::RichReport()));
  for (const char* asks : {" src=", "url(", "@import", "http://", "https://"}) {
    EXPECT_FALSE(Has(page, asks)) << asks;
  }
  EXPECT_FALSE(Has(std::string(html::Style()), "url("));
  EXPECT_FALSE(Has(std::string(html::Style()), "@import"));
  EXPECT_FALSE(Has(std::string(Script()), "innerHTML"));
  EXPECT_FALSE(Has(std::string(Script()), "eval("));
}

// What the users ask for: 2000 records with samples stay under 8 MiB.
TEST(Html, OfTwoThousandRecordsIsSmallEnough) {
  const std::string page = Html(testing::LargeReport(2000));
  EXPECT_LT(page.size(), size_t{8} << 20U);
  EXPECT_EQ(Count(page, "collectives/case_7</th>"), 100U);
}

TEST(Html, OfMoreThanCanBeShownSaysHowManyAreShown) {
  const std::string page = Html(testing::LargeReport(4100));
  EXPECT_LT(page.size(), size_t{8} << 20U);
  EXPECT_TRUE(Has(page, "the first 4000 of 4100"));
}

TEST(Html, IsTheSameForTheSameReport) {
  EXPECT_EQ(Html(testing::RichReport()), Html(testing::RichReport()));
}

}  // namespace
}  // namespace shardproof
