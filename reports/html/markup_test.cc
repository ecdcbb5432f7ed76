#include "reports/html/markup.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "reports/html/table.h"

namespace shardproof::html {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();
constexpr std::string_view kReplacement = "\uFFFD";

std::string Times(std::string_view text, int n) {
  std::string all;
  for (int i = 0; i < n; ++i) all += text;
  return all;
}

TEST(Escape, LeavesNoMarkup) {
  EXPECT_EQ(Escape("<a href=\"x\" b='y'>&amp;"),
            "&lt;a href=&quot;x&quot; b=&#39;y&#39;&gt;&amp;amp;");
}

TEST(Clean, KeepsUtf8OfEveryLength) {
  EXPECT_EQ(Clean("a\u00b5\u2192\U0001F600\n\t"),
            "a\u00b5\u2192\U0001F600\n\t");
}

// RFC 3629: lone and missing continuations, overlong forms, surrogates, beyond
// the last code point.
TEST(Clean, ReplacesWhatIsNotUtf8) {
  EXPECT_EQ(Clean("\x80|\xC3|\xE2\x82|\xFF"),
            Times(kReplacement, 1) + "|" + Times(kReplacement, 1) + "|" +
                Times(kReplacement, 2) + "|" + Times(kReplacement, 1));
  EXPECT_EQ(Clean("\xC0\xBC"), Times(kReplacement, 2));          // "<"
  EXPECT_EQ(Clean("\xE0\x80\xBC"), Times(kReplacement, 3));      // "<"
  EXPECT_EQ(Clean("\xED\xA0\x80"), Times(kReplacement, 3));      // U+D800
  EXPECT_EQ(Clean("\xF4\x90\x80\x80"), Times(kReplacement, 4));  // U+110000
}

TEST(Clean, ReplacesControlsAndTurnsOfDirection) {
  EXPECT_EQ(Clean(std::string("\0\x01\x1b\x7f", 4)), Times(kReplacement, 4));
  EXPECT_EQ(Clean("\u0085\u202E\u2066\u2028\uFEFF"), Times(kReplacement, 5));
}

TEST(Clean, CutsBetweenCharacters) {
  EXPECT_EQ(Clean("\u2192\u2192\u2192", 4),
            "\u2192\u2192\u2026 (3 more bytes)");
  EXPECT_EQ(Clean("abc", 3), "abc");
}

TEST(Writer, EscapesArgumentsAndKeepsMarkup) {
  const Markup inner = Fragment("<b title=\"{}\">", "\"<x>");
  EXPECT_EQ(Fragment("{}{}{}", inner, std::string("<i>"), 7).html,
            "<b title=\"&quot;&lt;x&gt;\">&lt;i&gt;7");
  // Braces in what is written are no pattern.
  EXPECT_EQ(Fragment("{}", "{}{0}%s").html, "{}{0}%s");
}

TEST(Significant, HasThreeDigits) {
  EXPECT_EQ(Significant(0), "0");
  EXPECT_EQ(Significant(0.0123456), "0.0123");
  EXPECT_EQ(Significant(1), "1.00");
  EXPECT_EQ(Significant(-12.345), "-12.3");
  EXPECT_EQ(Significant(99.96), "100");
  EXPECT_EQ(Significant(999.6), "1000");
  EXPECT_EQ(Significant(123456), "123000");
  EXPECT_EQ(Significant(1.5e12), "1.50e+12");
  EXPECT_EQ(Significant(1e-9), "1.00e-09");
  EXPECT_EQ(Significant(std::nan("")), "NaN");
  EXPECT_EQ(Significant(-kInfinity), "-\u221e");
}

TEST(Percent, HasTwoDecimalsBelowTen) {
  EXPECT_EQ(Percent(0.052), "+5.20");
  EXPECT_EQ(Percent(-0.0031), "-0.31");
  EXPECT_EQ(Percent(0.00001), "0.00");
  EXPECT_EQ(Percent(0.126), "+12.6");
  EXPECT_EQ(Percent(0.126, false), "12.6");
  EXPECT_EQ(Percent(std::nan("")), "NaN");
}

TEST(BytesAsText, UsesPowersOfTwo) {
  EXPECT_EQ(BytesAsText(7), "7 B");
  EXPECT_EQ(BytesAsText(1024), "1 KiB");
  EXPECT_EQ(BytesAsText(1536), "1.50 KiB");
  EXPECT_EQ(BytesAsText(1 << 24), "16 MiB");
  EXPECT_EQ(BytesAsText(kInfinity), "\u221e");
}

TEST(TimeAsText, ChoosesTheUnit) {
  EXPECT_EQ(TimeAsText(0.85), "850 ns");
  EXPECT_EQ(TimeAsText(12.34), "12.3 \u00b5s");
  EXPECT_EQ(TimeAsText(4560), "4.56 ms");
  EXPECT_EQ(TimeAsText(2e6), "2.00 s");
}

std::string Written(const Table& table) {
  Writer w;
  table.Write(w);
  return w.Take().html;
}

TEST(Table, ChoosesOneUnitPerColumn) {
  Table table("T", {{"key"}, {"median", Column::kTime}});
  table.Add({std::string("a"), 2500.0});
  table.Add({std::string("b"), 12.0});
  table.Add({std::string("c"), 4000.0});
  const std::string html = Written(table);
  EXPECT_NE(html.find("median <span class=\"unit\">ms</span>"),
            std::string::npos);
  EXPECT_NE(html.find("<td class=\"n\">2.50</td>"), std::string::npos);
  EXPECT_NE(html.find("<td class=\"n\">0.0120</td>"), std::string::npos);
}

TEST(Table, NamesItsRowsAndColumnsForReadersOfTables) {
  Table table("<T>", {{"key"}, {"n", Column::kWhole}});
  table.Add({std::string("<a>"), 12345678.0});
  const std::string html = Written(table);
  EXPECT_NE(html.find("<caption>&lt;T&gt;</caption>"), std::string::npos);
  EXPECT_NE(html.find("<th scope=\"row\">&lt;a&gt;</th>"), std::string::npos);
  EXPECT_NE(html.find("<th scope=\"col\""), std::string::npos);
  EXPECT_NE(html.find("12345678"), std::string::npos);
}

TEST(Table, MarksWhatIsNotThere) {
  Table table("T", {{"key"}, {"time", Column::kTime}, {"x"}});
  table.Add({std::string("a"), CellOf(std::nullopt)});
  const std::string html = Written(table);
  EXPECT_NE(html.find("<td class=\"n none\">\u2013</td>"), std::string::npos);
  EXPECT_EQ(Written(Table("T", {{"key"}})), "");
}

}  // namespace
}  // namespace shardproof::html
