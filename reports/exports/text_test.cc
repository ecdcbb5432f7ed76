#include "reports/exports/text.h"

#include <gtest/gtest.h>

#include <limits>
#include <string>

namespace shardproof {
namespace {

const std::string kBad(kReplacement);

TEST(Text, ValidUtf8IsLeftAlone) {
  const std::string text =
      "a\x7F \xC2\x80 \xDF\xBF \xE0\xA0\x80 \xED\x9F\xBF \xEE\x80\x80 "
      "\xEF\xBF\xBD \xF0\x90\x80\x80 \xF4\x8F\xBF\xBF";
  EXPECT_EQ(ValidUtf8(text), text);
  EXPECT_EQ(ValidUtf8(""), "");
}

TEST(Text, WhatIsNoCharacterIsReplaced) {
  EXPECT_EQ(ValidUtf8("a\xFF"), "a" + kBad);
  EXPECT_EQ(ValidUtf8("\x80 b"), kBad + " b");
  EXPECT_EQ(ValidUtf8("\xC0\x80"), kBad + kBad);             // Overlong.
  EXPECT_EQ(ValidUtf8("\xE0\x9F\xBF"), kBad + kBad + kBad);  // Overlong.
  EXPECT_EQ(ValidUtf8("\xF0\x8F\xBF\xBF").size(), 4 * kBad.size());
  EXPECT_EQ(ValidUtf8("\xED\xA0\x80").size(), 3 * kBad.size());  // Surrogate.
  EXPECT_EQ(ValidUtf8("\xF4\x90\x80\x80").size(), 4 * kBad.size());
  EXPECT_EQ(ValidUtf8("\xE2\x82"), kBad + kBad);  // Cut off.
  EXPECT_EQ(ValidUtf8("\xE2\x82x"), kBad + kBad + "x");
}

TEST(Text, XmlIsWellFormedAndComesBack) {
  EXPECT_EQ(XmlText("a<b>&\"'\n\t"), "a&lt;b&gt;&amp;\"'\n\t");
  EXPECT_EQ(XmlAttribute("a<b>&\"'\n\t"), "a&lt;b&gt;&amp;&quot;'&#10;&#9;");
  EXPECT_EQ(XmlText("]]>"), "]]&gt;");
  EXPECT_EQ(XmlText("a\r\n"), "a&#13;\n");
  EXPECT_EQ(XmlText(std::string("\0\x1F", 2)), kBad + kBad);
  EXPECT_EQ(XmlText("\xEF\xBF\xBE\xEF\xBF\xBF\xFF"), kBad + kBad + kBad);
  EXPECT_EQ(XmlText("\xEF\xBF\xBD\x7F"), "\xEF\xBF\xBD\x7F");
}

TEST(Text, PrintableKeepsWhatFormatsWriteThemselves) {
  EXPECT_EQ(Printable("a\tb\nc\rd\x1B\x7F"), "a\tb\nc\rd" + kBad + kBad);
}

TEST(Text, ShortenedIsCutBetweenCharacters) {
  EXPECT_EQ(Shortened("abcdef", 6), "abcdef");
  EXPECT_EQ(Shortened("abcdefg", 6), "abc...");
  EXPECT_EQ(Shortened("ab\xC3\xA9\xC3\xA9", 5), "ab...");
  EXPECT_EQ(Shortened("\xC3\xA9\xC3\xA9\xC3\xA9", 5), "\xC3\xA9...");
  EXPECT_EQ(Shortened("\xC3\xA9\xC3\xA9\xC3\xA9\xC3\xA9", 6), "\xC3\xA9...");
  EXPECT_EQ(Shortened("abcdef", 2), "..");
}

TEST(Text, NumbersReadBack) {
  EXPECT_EQ(NumberText(0.1), "0.1");
  EXPECT_EQ(NumberText(1024), "1024");
  EXPECT_EQ(NumberText(std::numeric_limits<double>::quiet_NaN()), "NaN");
  EXPECT_EQ(NumberText(-std::numeric_limits<double>::infinity()), "-Inf");
}

}  // namespace
}  // namespace shardproof
