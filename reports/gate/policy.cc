#include "reports/gate/policy.h"

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <chrono>
#include <cmath>
#include <cstring>
#include <fstream>
#include <initializer_list>
#include <sstream>
#include <utility>

#include "reports/gate/toml.h"

namespace shardproof {
namespace {

constexpr int64_t kVersion = 1;

// The tables of one file; keeps the first thing that is wrong.
class PolicyReader {
 public:
  PolicyReader(const toml::table& root, std::string name) : root_(root) {
    policy_.name = std::move(name);
  }

  StatusOr<Policy> Read() {
    // First: a file of a later version may have keys that are unknown here.
    ReadVersion();
    Known(root_, "the file",
          {"version", "inconclusive", "margins", "filters", "quarantine"});
    if (const toml::node* node = root_.get("inconclusive")) {
      const std::string choice = Text(*node, "inconclusive");
      if (choice != "pass" && choice != "fail") {
        Fail(*node,
             "\"inconclusive\" is \"{}\" and must be \"pass\" or \"fail\"",
             choice);
      }
      policy_.inconclusive_fails = choice == "fail";
    }
    if (const auto* margins = Table(root_, "margins")) ReadMargins(*margins);
    if (const auto* filters = Table(root_, "filters")) {
      Known(*filters, "[filters]", {"include", "exclude", "required"});
      policy_.include = Patterns(*filters, "include");
      policy_.exclude = Patterns(*filters, "exclude");
      policy_.required = Patterns(*filters, "required");
    }
    for (const toml::table* entry : Tables(root_, "quarantine")) {
      ReadQuarantine(*entry);
    }
    if (!status_.ok()) return std::move(status_);
    return std::move(policy_);
  }

 private:
  template <class... Args>
  void Fail(const toml::node& at, fmt::format_string<Args...> format,
            Args&&... args) {
    if (!status_.ok()) return;
    status_ =
        InvalidArgument("{}, line {}: {}", policy_.name, at.source().begin.line,
                        fmt::format(format, std::forward<Args>(args)...));
  }

  void ReadVersion() {
    const toml::node* node = root_.get("version");
    if (node == nullptr) {
      status_ = InvalidArgument("{} has no \"version\": write version = {}",
                                policy_.name, kVersion);
    } else if (!node->is_integer()) {
      Fail(*node, "\"version\" is not an integer");
    } else if (const int64_t version = **node->as_integer();
               version != kVersion) {
      Fail(*node, "version {} is not known, and this version reads {}: {}",
           version, kVersion,
           version > kVersion ? "use a newer shardproof" : "correct it");
    }
  }

  void Known(const toml::table& table, std::string_view where,
             std::initializer_list<std::string_view> keys) {
    for (const auto& [key, node] : table) {
      if (std::find(keys.begin(), keys.end(), key.str()) != keys.end()) {
        continue;
      }
      if (!status_.ok()) return;
      // The key's place: a table of its own may be elsewhere.
      status_ = InvalidArgument("{}, line {}: {} has no key \"{}\", but {}",
                                policy_.name, key.source().begin.line, where,
                                key.str(), fmt::join(keys, ", "));
    }
  }

  std::string Text(const toml::node& node, std::string_view key) {
    if (const auto* text = node.as_string()) return text->get();
    Fail(node, "\"{}\" is not a text in quotes", key);
    return {};
  }

  const toml::table* Table(const toml::table& parent, std::string_view key) {
    const toml::node* node = parent.get(key);
    if (node == nullptr) return nullptr;
    if (!node->is_table()) Fail(*node, "\"{}\" is not a table: [{}]", key, key);
    return node->as_table();
  }

  std::vector<const toml::table*> Tables(const toml::table& parent,
                                         std::string_view key) {
    std::vector<const toml::table*> tables;
    const toml::node* node = parent.get(key);
    if (node == nullptr) return tables;
    const toml::array* list = node->as_array();
    if (list == nullptr) {
      Fail(*node, "\"{}\" is not a list of tables: [[{}]]", key, key);
      return tables;
    }
    for (const toml::node& item : *list) {
      if (item.is_table()) {
        tables.push_back(item.as_table());
      } else {
        Fail(item, "an entry of \"{}\" is not a table: [[{}]]", key, key);
      }
    }
    return tables;
  }

  std::optional<Pattern> OnePattern(const toml::node& node,
                                    std::string_view key) {
    auto pattern = Pattern::Create(Text(node, key));
    if (pattern.ok()) return *std::move(pattern);
    Fail(node, "\"{}\": {}", key, pattern.status().message());
    return std::nullopt;
  }

  std::vector<Pattern> Patterns(const toml::table& table,
                                std::string_view key) {
    std::vector<Pattern> patterns;
    const toml::node* node = table.get(key);
    if (node == nullptr) return patterns;
    const toml::array* list = node->as_array();
    if (list == nullptr) {
      Fail(*node, "\"{}\" is not a list: [\"..\", \"..\"]", key);
      return patterns;
    }
    for (const toml::node& item : *list) {
      if (auto pattern = OnePattern(item, key)) {
        patterns.push_back(*std::move(pattern));
      }
    }
    return patterns;
  }

  // "2%" is 0.02. With its sign, so that nobody writes 2 for 2 percent.
  std::optional<double> Percent(const toml::table& table,
                                std::string_view key) {
    const toml::node* node = table.get(key);
    if (node == nullptr) return std::nullopt;
    const std::string text = Text(*node, key);
    double value = 0;
    const char* end = text.data() + text.size();
    const auto [stop, error] = std::from_chars(text.data(), end, value);
    if (error != std::errc() || std::string_view(stop, end) != "%" ||
        !(value >= 0 && value <= 1000)) {
      Fail(*node, "\"{}\" is not a percentage such as \"2%\"", key);
      return std::nullopt;
    }
    return value / 100;
  }

  std::optional<double> Microseconds(const toml::table& table,
                                     std::string_view key) {
    const toml::node* node = table.get(key);
    if (node == nullptr) return std::nullopt;
    const auto value = node->is_number() ? node->value<double>() : std::nullopt;
    if (!value.has_value() || !(*value >= 0) || std::isinf(*value)) {
      Fail(*node, "\"{}\" is not a number of microseconds", key);
      return std::nullopt;
    }
    return value;
  }

  void ReadMargins(const toml::table& table) {
    Known(table, "[margins]", {"least", "least_us", "for"});
    policy_.margin.least = Percent(table, "least").value_or(0.02);
    policy_.margin.least_us = Microseconds(table, "least_us").value_or(0.5);
    for (const toml::table* entry : Tables(table, "for")) {
      Known(*entry, "[[margins.for]]", {"filter", "least", "least_us"});
      const auto filter = RequiredFilter(*entry, "[[margins.for]]");
      if (!filter.has_value()) continue;
      policy_.margins_for.push_back(
          {.filter = *filter,
           .least = Percent(*entry, "least"),
           .least_us = Microseconds(*entry, "least_us")});
    }
  }

  std::optional<Pattern> RequiredFilter(const toml::table& table,
                                        std::string_view where) {
    const toml::node* node = table.get("filter");
    if (node != nullptr) return OnePattern(*node, "filter");
    Fail(table, "{} has no \"filter\"", where);
    return std::nullopt;
  }

  std::string RequiredText(const toml::table& table, std::string_view key) {
    const toml::node* node = table.get(key);
    if (node == nullptr) {
      Fail(table, "[[quarantine]] has no \"{}\"", key);
      return {};
    }
    std::string text = Text(*node, key);
    if (text.find_first_not_of(" \t\n") == std::string::npos) {
      Fail(*node, "\"{}\" of [[quarantine]] is empty", key);
    }
    return text;
  }

  void ReadQuarantine(const toml::table& table) {
    Known(table, "[[quarantine]]", {"filter", "owner", "reason", "expires"});
    const auto filter = RequiredFilter(table, "[[quarantine]]");
    std::string owner = RequiredText(table, "owner");
    std::string reason = RequiredText(table, "reason");
    std::string expires = Date(table);
    if (!status_.ok() || !filter.has_value()) return;
    policy_.quarantine.push_back(
        {.filter = *filter,
         .owner = std::move(owner),
         .reason = std::move(reason),
         .expires = std::move(expires),
         .line = static_cast<int>(table.source().begin.line)});
  }

  // A date of TOML, without or with quotes.
  std::string Date(const toml::table& table) {
    const toml::node* node = table.get("expires");
    if (node == nullptr) {
      Fail(table, "[[quarantine]] has no \"expires\"");
      return {};
    }
    std::string text;
    if (const auto* date = node->as_date()) {
      text = fmt::format("{:04}-{:02}-{:02}", date->get().year,
                         date->get().month, date->get().day);
    } else if (const auto* quoted = node->as_string()) {
      text = quoted->get();
    }
    if (text.size() != 10 || !DayOf(text).has_value()) {
      Fail(*node, "\"expires\" is not a day such as 2026-12-01");
      return {};
    }
    return text;
  }

  const toml::table& root_;
  Policy policy_;
  Status status_;
};

}  // namespace

std::optional<std::chrono::sys_days> DayOf(std::string_view text) {
  if (text.size() < 10 || text[4] != '-' || text[7] != '-') return {};
  const auto number = [&](size_t begin, size_t size) {
    int value = -1;
    const char* first = text.data() + begin;
    const auto [stop, error] = std::from_chars(first, first + size, value);
    return error == std::errc() && stop == first + size ? value : -1;
  };
  const int year = number(0, 4), month = number(5, 2), day = number(8, 2);
  if (year < 1 || month < 1 || day < 1) return {};
  const std::chrono::year_month_day date{
      std::chrono::year(year), std::chrono::month(static_cast<unsigned>(month)),
      std::chrono::day(static_cast<unsigned>(day))};
  if (!date.ok()) return {};
  return std::chrono::sys_days{date};
}

namespace {

// Whether a count, a{7}, or a back reference, \7, has so many digits that
// libstdc++ overflows when it reads the number. Other numbers may be as long
// as they like: "count=1073741824".
bool HasHugeNumber(std::string_view text) {
  constexpr size_t kMostDigits = 9;
  bool count = false;  // Behind { or its comma, or behind a backslash.
  size_t digits = 0;
  for (const char c : text) {
    if (c >= '0' && c <= '9') {
      if (count && ++digits > kMostDigits) return true;
      continue;
    }
    count = c == '{' || c == '\\' || (c == ',' && count);
    digits = 0;
  }
  return false;
}

}  // namespace

StatusOr<Pattern> Pattern::Create(const std::string& text) {
  if (text.size() > kMostCharacters) {
    return InvalidArgument("a regular expression has at most {} characters",
                           kMostCharacters);
  }
  if (HasHugeNumber(text)) {
    return InvalidArgument("\"{}\" has a count of too many digits", text);
  }
  try {
    return Pattern(text, std::regex(text));
  } catch (const std::regex_error& error) {
    return InvalidArgument("\"{}\" is not a regular expression: {}", text,
                           error.what());
  }
}

bool Policy::Selects(const std::string& key) const {
  const auto matches = [&](const Pattern& p) { return p.Matches(key); };
  return (include.empty() ||
          std::any_of(include.begin(), include.end(), matches)) &&
         std::none_of(exclude.begin(), exclude.end(), matches);
}

Policy::Margin Policy::MarginOf(const std::string& key) const {
  const auto it =
      std::find_if(margins_for.rbegin(), margins_for.rend(),
                   [&](const MarginFor& m) { return m.filter.Matches(key); });
  if (it == margins_for.rend()) return margin;
  return {.least = it->least.value_or(margin.least),
          .least_us = it->least_us.value_or(margin.least_us)};
}

StatusOr<Policy> ParsePolicy(std::string_view text, const std::string& name) {
  const toml::parse_result result = toml::parse(text, name);
  if (!result) {
    return InvalidArgument("{}, line {}: {}", name,
                           result.error().source().begin.line,
                           result.error().description());
  }
  return PolicyReader(result.table(), name).Read();
}

StatusOr<Policy> LoadPolicy(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  std::stringstream text;
  text << in.rdbuf();
  if (!in.is_open() || in.bad()) {
    return Unavailable("cannot read {}: {}", path, std::strerror(errno));
  }
  return ParsePolicy(text.str(), path);
}

Policy DefaultPolicy() {
  Policy policy;
  policy.name = "the default policy";
  return policy;
}

}  // namespace shardproof
