#include "reports/json_io.h"

#include <cmath>
#include <limits>

namespace shardproof {

namespace {

// Where a bracket goes deeper than kMostJsonDepth; the size where none does.
size_t TooDeepAt(std::string_view text) {
  int depth = 0;
  bool quoted = false;
  for (size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    if (quoted) {
      if (c == '\\') ++i;
      quoted = c != '"';
    } else if (c == '"') {
      quoted = true;
    } else if (c == '[' || c == '{') {
      if (++depth > kMostJsonDepth) return i;
    } else if (c == ']' || c == '}') {
      --depth;
    }
  }
  return text.size();
}

}  // namespace

StatusOr<nlohmann::ordered_json> ParseJson(std::string_view text,
                                           const std::string& name) {
  if (const size_t at = TooDeepAt(text); at < text.size()) {
    return DataLoss("{} is malformed at byte {}: nested deeper than {}", name,
                    at + 1, kMostJsonDepth);
  }
  try {
    return nlohmann::ordered_json::parse(text.begin(), text.end());
  } catch (const nlohmann::json::parse_error& error) {
    return DataLoss("{} is truncated or malformed at byte {}: {}", name,
                    error.byte, error.what());
  } catch (const nlohmann::json::exception& error) {
    return DataLoss("{} is malformed: {}", name, error.what());
  }
}

nlohmann::ordered_json JsonNumber(double value) {
  if (std::isnan(value)) return "NaN";
  if (std::isinf(value)) return value > 0 ? "Infinity" : "-Infinity";
  return value;
}

nlohmann::ordered_json JsonNumbers(const std::vector<double>& values) {
  nlohmann::ordered_json out = nlohmann::ordered_json::array();
  for (double v : values) out.push_back(JsonNumber(v));
  return out;
}

void JsonReader::Read(const Json& j, const char* key, std::string& out) {
  if (!j.is_string()) return Fail(key, "a string");
  out = j.get<std::string>();
}
void JsonReader::Read(const Json& j, const char* key, bool& out) {
  if (!j.is_boolean()) return Fail(key, "true or false");
  out = j.get<bool>();
}
void JsonReader::Read(const Json& j, const char* key, int64_t& out) {
  if (!j.is_number_integer()) return Fail(key, "an integer");
  out = j.get<int64_t>();
}
void JsonReader::Read(const Json& j, const char* key, int& out) {
  int64_t wide = 0;
  Read(j, key, wide);
  if (wide < std::numeric_limits<int>::min() ||
      wide > std::numeric_limits<int>::max()) {
    return Fail(key, "an integer of 32 bits");
  }
  out = static_cast<int>(wide);
}
void JsonReader::Read(const Json& j, const char* key, double& out) {
  if (j.is_null() || j == "NaN") {
    out = std::numeric_limits<double>::quiet_NaN();
  } else if (j == "Infinity" || j == "-Infinity") {
    out = std::numeric_limits<double>::infinity();
    if (j == "-Infinity") out = -out;
  } else if (j.is_number()) {
    out = j.get<double>();
  } else {
    Fail(key, "a number");
  }
}

}  // namespace shardproof
