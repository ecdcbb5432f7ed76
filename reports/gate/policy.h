// What the gate asks for: gate.toml.
//
//     version = 1                      # Required.
//     inconclusive = "pass"            # or "fail": exit code 4
//
//     [margins]                        # Slow-downs below both are of no interest.
//     least = "2%"
//     least_us = 0.5
//     [[margins.for]]                  # The last that matches a key decides.
//     filter = "^pipeline/"
//     least = "5%"
//
//     [filters]                        # Regular expressions, searched in keys.
//     include = ["^collectives/"]      # Empty: everything.
//     exclude = [" emulated$"]
//     required = ["all_reduce ring "]  # Must have a result that passed.
//
//     [[quarantine]]                   # All four are required.
//     filter = "all_to_all .* mpi"
//     owner = "links@example.com"
//     reason = "loses a message, ticket 17"
//     expires = 2026-12-01             # The last day on which it applies.
//
// Contract: an unknown key, a key of another type, a later version or a regular
// expression that is none is kInvalidArgument and names the file, the line and
// the key: a misspelt key would otherwise make the gate weaker and nobody would
// know. A quarantine that ends more than 90 days ahead does not apply (gate.h).
#ifndef SHARDPROOF_REPORTS_GATE_POLICY_H_
#define SHARDPROOF_REPORTS_GATE_POLICY_H_

#include <chrono>
#include <memory>
#include <optional>
#include <regex>
#include <string>
#include <string_view>
#include <vector>

#include "reference/status.h"

namespace shardproof {

// A regular expression (ECMAScript) with its text.
class Pattern {
 public:
  // At most so long: std::regex takes stack for every parenthesis.
  static constexpr size_t kMostCharacters = 1000;

  static StatusOr<Pattern> Create(const std::string& text);
  bool Matches(const std::string& key) const {
    return std::regex_search(key, *regex_);
  }
  const std::string& text() const { return text_; }

 private:
  Pattern(std::string text, std::regex regex)
      : text_(std::move(text)),
        regex_(std::make_shared<const std::regex>(std::move(regex))) {}
  std::string text_;
  std::shared_ptr<const std::regex> regex_;
};

struct Policy {
  // The margin delta of a comparison is the larger of the two (and of the
  // machine's noise).
  struct Margin {
    double least = 0.02;    // Share of the baseline's time.
    double least_us = 0.5;  // Microseconds.
    friend bool operator==(const Margin&, const Margin&) = default;
  };
  struct MarginFor {
    Pattern filter;
    std::optional<double> least = {}, least_us = {};
  };
  struct Quarantine {
    Pattern filter;
    std::string owner = {}, reason = {};
    std::string expires = {};  // "2026-12-01"
    int line = 0;
  };

  std::string name = {};  // The file, for people.
  bool inconclusive_fails = false;
  Margin margin = {};
  std::vector<MarginFor> margins_for = {};
  std::vector<Pattern> include = {}, exclude = {}, required = {};
  std::vector<Quarantine> quarantine = {};

  // Whether the gate looks at the key.
  bool Selects(const std::string& key) const;
  Margin MarginOf(const std::string& key) const;
};

// The day that a date or a time of ISO 8601 begins with; none where there is no
// such day.
std::optional<std::chrono::sys_days> DayOf(std::string_view text);

// `name` is for messages.
StatusOr<Policy> ParsePolicy(std::string_view text, const std::string& name);
// Reads the file; kUnavailable where it cannot.
StatusOr<Policy> LoadPolicy(const std::string& path);
// 2 percent and 0.5 us, of everything; inconclusive is not a failure.
Policy DefaultPolicy();

}  // namespace shardproof

#endif  // SHARDPROOF_REPORTS_GATE_POLICY_H_
