#include "reports/exports/text.h"

#include <fmt/format.h>

#include <cmath>
#include <cstdint>

namespace shardproof {
namespace {

bool IsContinuation(char c) {
  return (static_cast<unsigned char>(c) & 0xC0) == 0x80;
}

// The bytes of the character that starts `text`, 0 where none does.
size_t CharacterLength(std::string_view text) {
  const auto first = static_cast<unsigned char>(text[0]);
  if (first < 0x80) return 1;
  const size_t length = first >= 0xF0 ? 4 : first >= 0xE0 ? 3 : 2;
  if (first < 0xC2 || first > 0xF4 || text.size() < length) return 0;
  uint32_t code = first & (0x7FU >> length);
  for (size_t i = 1; i < length; ++i) {
    if (!IsContinuation(text[i])) return 0;
    code = code << 6 | (static_cast<unsigned char>(text[i]) & 0x3FU);
  }
  const bool overlong =
      (length == 3 && code < 0x800) || (length == 4 && code < 0x10000);
  const bool surrogate = code >= 0xD800 && code <= 0xDFFF;
  return overlong || surrogate || code > 0x10FFFF ? 0 : length;
}

bool IsControl(char c) {
  return static_cast<unsigned char>(c) < 0x20 || c == 0x7F;
}

// U+FFFE and U+FFFF, which are UTF-8 and not XML.
bool IsNoCharacter(std::string_view character) {
  return character == "\xEF\xBF\xBE" || character == "\xEF\xBF\xBF";
}

std::string Xml(std::string_view text, bool attribute) {
  std::string out;
  const std::string valid = ValidUtf8(text);
  std::string_view rest = valid;
  while (!rest.empty()) {
    const std::string_view character = rest.substr(0, CharacterLength(rest));
    rest.remove_prefix(character.size());
    const char c = character[0];
    if (c == '&') {
      out += "&amp;";
    } else if (c == '<') {
      out += "&lt;";
    } else if (c == '>') {
      out += "&gt;";
    } else if (c == '"' && attribute) {
      out += "&quot;";
    } else if (c == '\r' || (attribute && (c == '\n' || c == '\t'))) {
      // As they are, a parser would turn them into a line feed or a blank.
      out += fmt::format("&#{};", static_cast<int>(c));
    } else if ((IsControl(c) && c != '\n' && c != '\t' && c != 0x7F) ||
               IsNoCharacter(character)) {
      out += kReplacement;
    } else {
      out += character;
    }
  }
  return out;
}

}  // namespace

std::string ValidUtf8(std::string_view text) {
  std::string out;
  out.reserve(text.size());
  while (!text.empty()) {
    const size_t length = CharacterLength(text);
    if (length == 0) {
      out += kReplacement;
      text.remove_prefix(1);
    } else {
      out += text.substr(0, length);
      text.remove_prefix(length);
    }
  }
  return out;
}

std::string Printable(std::string_view text) {
  std::string out;
  for (const char c : ValidUtf8(text)) {
    if (IsControl(c) && c != '\t' && c != '\n' && c != '\r') {
      out += kReplacement;
    } else {
      out += c;
    }
  }
  return out;
}

std::string XmlText(std::string_view text) { return Xml(text, false); }
std::string XmlAttribute(std::string_view text) { return Xml(text, true); }

std::string Shortened(std::string_view text, size_t bytes) {
  constexpr std::string_view kDots = "...";
  std::string valid = ValidUtf8(text);
  if (valid.size() <= bytes) return valid;
  size_t end = bytes > kDots.size() ? bytes - kDots.size() : 0;
  while (end > 0 && IsContinuation(valid[end])) --end;
  return valid.substr(0, end) + std::string(kDots.substr(0, bytes - end));
}

std::string NumberText(double value) {
  if (std::isnan(value)) return "NaN";
  if (std::isinf(value)) return value > 0 ? "Inf" : "-Inf";
  return fmt::format("{}", value);
}

}  // namespace shardproof
