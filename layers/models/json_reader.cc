#include "layers/models/json_reader.h"

#include <fmt/format.h>

#include <cmath>
#include <limits>
#include <utility>

namespace shardproof::models {
namespace {

constexpr int64_t kLargest = std::numeric_limits<int32_t>::max();

// "[json.exception.parse_error.101] parse error at line 1, column 2: syntax error ..." without the library's own words.
std::string Explain(const std::string& what) {
  for (const std::string_view prefix : {"parse error at ", "] "}) {
    const size_t at = what.find(prefix);
    if (at != std::string::npos) return what.substr(at + prefix.size());
  }
  return what;
}

// A value as a message quotes it. Containers are named, not printed: they may be nested deeper than the stack.
std::string Describe(const nlohmann::json& value) {
  if (value.is_structured()) return fmt::format("an {}", value.type_name());
  std::string text =
      value.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
  if (text.size() > 40) text = text.substr(0, 37) + "...";
  return text;
}

}  // namespace

StatusOr<nlohmann::json> ParseObject(std::string_view text,
                                     std::string_view origin) {
  nlohmann::json object;
  try {
    object = nlohmann::json::parse(text.begin(), text.end());
  } catch (const nlohmann::json::exception& e) {
    return InvalidArgument("{}: malformed JSON at {}; is the file complete?",
                           origin, Explain(e.what()));
  }
  if (!object.is_object()) {
    return InvalidArgument(
        "{}: holds {}, but a config.json is one object, {{\"model_type\": "
        "...}}",
        origin, Describe(object));
  }
  return object;
}

const nlohmann::json* JsonReader::Find(const char* key) const {
  const auto it = object_.find(key);
  return it == object_.end() || it->is_null() ? nullptr : &*it;
}

void JsonReader::Fail(Status status) {
  if (status_.ok()) status_ = std::move(status);
}

void JsonReader::FailMissing(const char* key, const char* kind) {
  if (object_.contains(key)) {
    Fail(InvalidArgument("{}: the key \"{}\" is null; set it to {}", origin_,
                         key, kind));
  } else {
    Fail(InvalidArgument("{}: the key \"{}\" is missing; add it with {}",
                         origin_, key, kind));
  }
}

void JsonReader::FailValue(const char* key, const std::string& wanted) {
  Fail(InvalidArgument("{}: \"{}\" is {}; set it to {}", origin_, key,
                       Describe(object_.at(key)), wanted));
}

int64_t JsonReader::Whole(const char* key, int64_t least) {
  const nlohmann::json* value = Find(key);
  if (value == nullptr) {
    FailMissing(key, "a whole number");
    return 0;
  }
  // An integer beyond 64 bits is parsed as a double, and is refused as such.
  const bool fits =
      value->is_number_unsigned()
          ? value->get<uint64_t>() <= static_cast<uint64_t>(kLargest)
          : value->is_number_integer();
  const int64_t number = fits ? value->get<int64_t>() : least - 1;
  if (number < least) {
    FailValue(key,
              fmt::format("a whole number from {} to {}", least, kLargest));
    return 0;
  }
  return number;
}

int64_t JsonReader::WholeOr(const char* key, int64_t fallback, int64_t least) {
  return Has(key) ? Whole(key, least) : fallback;
}

double JsonReader::PositiveOr(const char* key, double fallback) {
  const nlohmann::json* value = Find(key);
  if (value == nullptr) return fallback;
  const double number = value->is_number() ? value->get<double>() : 0;
  if (!(number > 0) || !std::isfinite(number))
    FailValue(key, "a positive number");
  return number;
}

bool JsonReader::FlagOr(const char* key, bool fallback) {
  const nlohmann::json* value = Find(key);
  if (value == nullptr) return fallback;
  if (!value->is_boolean()) {
    FailValue(key, "true or false");
    return fallback;
  }
  return value->get<bool>();
}

std::string JsonReader::Text(const char* key) {
  const nlohmann::json* value = Find(key);
  if (value == nullptr) {
    FailMissing(key, "a text");
    return "";
  }
  if (!value->is_string()) {
    FailValue(key, "a text");
    return "";
  }
  return value->get<std::string>();
}

}  // namespace shardproof::models
