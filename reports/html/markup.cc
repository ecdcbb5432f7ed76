#include "reports/html/markup.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>

namespace shardproof::html {
namespace {

constexpr std::string_view kReplacement = "\xEF\xBF\xBD";

// The length of the sequence that begins at text[0], and its code point; 0
// where it is not UTF-8 (RFC 3629: overlong forms, surrogates, beyond U+10FFFF).
size_t Decode(std::string_view text, uint32_t& point) {
  const auto byte = [&](size_t i) { return static_cast<uint8_t>(text[i]); };
  const uint8_t first = byte(0);
  if (first < 0x80) {
    point = first;
    return 1;
  }
  size_t length = 0;
  uint32_t smallest = 0;
  if (first >= 0xC2 && first < 0xE0) {
    length = 2, smallest = 0x80, point = first & 0x1FU;
  } else if (first >= 0xE0 && first < 0xF0) {
    length = 3, smallest = 0x800, point = first & 0x0FU;
  } else if (first >= 0xF0 && first < 0xF5) {
    length = 4, smallest = 0x10000, point = first & 0x07U;
  }
  if (length == 0 || text.size() < length) return 0;
  for (size_t i = 1; i < length; ++i) {
    if ((byte(i) & 0xC0U) != 0x80) return 0;
    point = point << 6U | (byte(i) & 0x3FU);
  }
  const bool surrogate = point >= 0xD800 && point < 0xE000;
  return point < smallest || point > 0x10FFFF || surrogate ? 0 : length;
}

bool Hidden(uint32_t point) {
  if (point == '\n' || point == '\t') return false;
  return point < 0x20 || (point >= 0x7F && point < 0xA0) ||
         (point >= 0x200B && point <= 0x200F) ||
         (point >= 0x2028 && point <= 0x202E) ||
         (point >= 0x2060 && point <= 0x206F) || point == 0x061C ||
         point == 0xFEFF || point == 0xFFFE || point == 0xFFFF;
}

}  // namespace

std::string Clean(std::string_view text, size_t longest) {
  std::string clean;
  clean.reserve(std::min(text.size(), longest + 64));
  for (size_t at = 0; at < text.size();) {
    if (clean.size() >= longest) {
      clean += fmt::format("\u2026 ({} more bytes)", text.size() - at);
      break;
    }
    uint32_t point = 0;
    const size_t length = Decode(text.substr(at), point);
    if (length == 0 || Hidden(point)) {
      clean += kReplacement;
    } else {
      clean += text.substr(at, length);
    }
    at += std::max<size_t>(length, 1);
  }
  return clean;
}

std::string Escape(std::string_view text, size_t longest) {
  const std::string clean = Clean(text, longest);
  std::string escaped;
  escaped.reserve(clean.size() + clean.size() / 8);
  for (const char c : clean) {
    switch (c) {
      case '&':
        escaped += "&amp;";
        break;
      case '<':
        escaped += "&lt;";
        break;
      case '>':
        escaped += "&gt;";
        break;
      case '"':
        escaped += "&quot;";
        break;
      case '\'':
        escaped += "&#39;";
        break;
      default:
        escaped += c;
    }
  }
  return escaped;
}

std::string Significant(double value) {
  if (std::isnan(value)) return "NaN";
  if (std::isinf(value)) return value > 0 ? "\u221e" : "-\u221e";
  const double size = std::abs(value);
  if (size == 0) return "0";
  if (size < 1e-6 || size >= 1e9) return fmt::format("{:.2e}", value);
  // Rounded first: 999.6 has four digits before the point, not three.
  const double rounded =
      std::strtod(fmt::format("{:.2e}", value).c_str(), nullptr);
  const int exponent =
      static_cast<int>(std::floor(std::log10(std::abs(rounded)) + 1e-9));
  return fmt::format("{:.{}f}", rounded, std::max(0, 2 - exponent));
}

std::string Percent(double share, bool sign) {
  const double percent = 100 * share;
  std::string text = std::abs(percent) < 0.005 ? "0.00" : Significant(percent);
  // Two decimals are enough, and all are alike below 10 percent.
  if (std::abs(percent) >= 0.005 && std::abs(percent) < 9.995) {
    text = fmt::format("{:.2f}", percent);
  }
  return sign && percent >= 0.005 ? "+" + text : text;
}

std::string BytesAsText(double bytes) {
  if (!std::isfinite(bytes)) return Significant(bytes);
  constexpr std::array<const char*, 5> kUnits = {"B", "KiB", "MiB", "GiB",
                                                 "TiB"};
  size_t unit = 0;
  while (std::abs(bytes) >= 1024 && unit + 1 < kUnits.size()) {
    bytes /= 1024;
    ++unit;
  }
  const bool whole = bytes == std::floor(bytes) && std::abs(bytes) < 1024;
  return whole ? fmt::format("{:.0f} {}", bytes, kUnits.at(unit))
               : fmt::format("{} {}", Significant(bytes), kUnits.at(unit));
}

std::string TimeAsText(double us) {
  if (!std::isfinite(us)) return Significant(us);
  const double size = std::abs(us);
  if (size != 0 && size < 1) return Significant(1e3 * us) + " ns";
  if (size < 1e3) return Significant(us) + " \u00b5s";
  if (size < 1e6) return Significant(us / 1e3) + " ms";
  return Significant(us / 1e6) + " s";
}

std::string Counted(size_t n, std::string_view one) {
  return fmt::format("{} {}{}", n, one, n == 1 ? "" : "s");
}

}  // namespace shardproof::html
