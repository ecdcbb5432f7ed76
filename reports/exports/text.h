// Text from files and environments made fit for the formats that are written:
// what is not UTF-8 is replaced, and so is what a format forbids.
//
//     ValidUtf8("a\xff")            // "a\xEF\xBF\xBD"
//     XmlAttribute("a<\"b\"\n")     // "a&lt;&quot;b&quot;&#10;"
//
// Contract: the result of ValidUtf8 is UTF-8, and valid input comes back as it
// is. The result of XmlText and XmlAttribute is well-formed in XML 1.0 between
// tags and between double quotes; a parser gives the input back, but for
// characters that XML 1.0 cannot hold, which are U+FFFD.
#ifndef SHARDPROOF_REPORTS_EXPORTS_TEXT_H_
#define SHARDPROOF_REPORTS_EXPORTS_TEXT_H_

#include <cstddef>
#include <string>
#include <string_view>

namespace shardproof {

inline constexpr std::string_view kReplacement = "\xEF\xBF\xBD";  // U+FFFD

// Every maximal run that is no part of a valid character becomes one U+FFFD for
// each byte (overlong forms, surrogates and what is beyond U+10FFFF too).
std::string ValidUtf8(std::string_view text);

// ValidUtf8, with control characters (U+0000 to U+001F and U+007F) replaced;
// not tab, line feed and carriage return, which formats write in their own way.
std::string Printable(std::string_view text);

std::string XmlText(std::string_view text);
std::string XmlAttribute(std::string_view text);

// At most `bytes` of valid UTF-8, cut between characters, with "..." where
// anything is missing.
std::string Shortened(std::string_view text, size_t bytes);

// Shortest text that reads back as the same number; "NaN", "Inf", "-Inf".
std::string NumberText(double value);

}  // namespace shardproof

#endif  // SHARDPROOF_REPORTS_EXPORTS_TEXT_H_
