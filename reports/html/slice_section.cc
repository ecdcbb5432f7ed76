// Which values of the parameters the regressions have in common.
//
// A slice is one value of an axis, or of up to three: dtype=bf16, or dtype=bf16
// and ranks=8. Of the slices the best has the largest F1: the harmonic mean of the
// share of the slice that is slower and of the share of all slower keys that
// lie in it.
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <charconv>
#include <map>
#include <set>
#include <utility>

#include "reports/html/pages.h"
#include "reports/html/table.h"

namespace shardproof::html {
namespace {

constexpr size_t kMostSlices = 12;
constexpr size_t kMostConditions = 3;
// Keys with more axes than this are told by the first ones.
constexpr size_t kMostAxes = 16;
// With more values, an axis tells single keys apart and not slices.
constexpr size_t kMostColumns = 16;
constexpr size_t kMostCrossTables = 6;

using Values = std::map<std::string, std::string>;  // Axis -> value.

Values ValuesOf(const Comparison& c) {
  Values values = {{"case", c.case_name},
                   {"variant", c.variant},
                   {"backend", c.backend},
                   {"ranks", fmt::format("{}", c.ranks)}};
  std::string_view rest = c.params;
  while (!rest.empty()) {
    const size_t end = std::min(rest.find(' '), rest.size());
    const std::string_view part = rest.substr(0, end);
    if (const size_t equals = part.find('='); equals != part.npos) {
      values[std::string(part.substr(0, equals))] = part.substr(equals + 1);
    }
    rest.remove_prefix(std::min(end + 1, rest.size()));
  }
  return values;
}

struct Keyed {
  Values values = {};
  bool slower = false;
};

struct Slice {
  std::vector<std::string> conditions = {};
  size_t keys = 0, slower = 0;
  double score = 0;
};

std::string NameOf(const Slice& slice) {
  return fmt::format("{}", fmt::join(slice.conditions, " and "));
}

// Counts every slice of up to kMostConditions conditions that a key lies in.
class Counter {
 public:
  struct Count {
    size_t keys = 0, slower = 0;
  };
  // The conditions of one key, "axis=value", sorted.
  void Take(const std::vector<std::string>& conditions, bool slower) {
    Choose(conditions, 0, slower);
  }
  const std::map<std::vector<std::string>, Count>& counts() const {
    return counts_;
  }

 private:
  void Choose(const std::vector<std::string>& conditions, size_t from,
              bool slower) {
    for (size_t i = from; i < conditions.size(); ++i) {
      chosen_.push_back(conditions[i]);
      Count& c = counts_[chosen_];
      ++c.keys;
      c.slower += slower ? 1 : 0;
      if (chosen_.size() < kMostConditions) {
        Choose(conditions, i + 1, slower);
      }
      chosen_.pop_back();
    }
  }

  std::vector<std::string> chosen_;
  std::map<std::vector<std::string>, Count> counts_;
};

// Only what a slower key has can tell the slower ones, and what all keys have
// tells nothing.
std::set<std::string> Telling(const std::vector<Keyed>& all) {
  std::map<std::string, size_t> counts;
  std::set<std::string> of_slower;
  for (const Keyed& k : all) {
    for (const auto& [axis, value] : k.values) {
      const std::string condition = fmt::format("{}={}", axis, value);
      ++counts[condition];
      if (k.slower) of_slower.insert(condition);
    }
  }
  std::set<std::string> telling;
  for (const auto& [condition, n] : counts) {
    if (n < all.size() && of_slower.count(condition) > 0) {
      telling.insert(condition);
    }
  }
  return telling;
}

// Best first. Of slices of the same keys only that with the fewest conditions
// is there.
std::vector<Slice> Slices(const std::vector<Keyed>& all, size_t slower) {
  const std::set<std::string> telling = Telling(all);
  Counter counter;
  for (const Keyed& k : all) {
    std::vector<std::string> conditions;
    for (const auto& [axis, value] : k.values) {
      std::string condition = fmt::format("{}={}", axis, value);
      if (telling.count(condition) > 0) {
        conditions.push_back(std::move(condition));
      }
    }
    if (conditions.size() > kMostAxes) conditions.resize(kMostAxes);
    std::sort(conditions.begin(), conditions.end());
    counter.Take(conditions, k.slower);
  }
  std::vector<Slice> slices;
  for (const auto& [conditions, c] : counter.counts()) {
    if (c.slower == 0) continue;
    // F1 = 2 / (1 / precision + 1 / recall).
    slices.push_back({conditions, c.keys, c.slower,
                      2.0 * static_cast<double>(c.slower) /
                          static_cast<double>(c.keys + slower)});
  }
  std::stable_sort(slices.begin(), slices.end(),
                   [](const Slice& a, const Slice& b) {
                     if (a.score != b.score) return a.score > b.score;
                     return a.conditions.size() < b.conditions.size();
                   });
  std::vector<Slice> kept;
  for (Slice& s : slices) {
    if (kept.size() >= kMostSlices) break;
    const bool said = std::any_of(kept.begin(), kept.end(), [&](auto& other) {
      return other.keys == s.keys && other.slower == s.slower &&
             std::includes(s.conditions.begin(), s.conditions.end(),
                           other.conditions.begin(), other.conditions.end());
    });
    if (!said) kept.push_back(std::move(s));
  }
  return kept;
}

bool ToInteger(const std::string& text, int64_t& value) {
  const char* end = text.data() + text.size();
  return std::from_chars(text.data(), end, value).ptr == end && !text.empty();
}

// Numbers by size, before words by alphabet.
struct BySize {
  bool operator()(const std::string& a, const std::string& b) const {
    int64_t x = 0, y = 0;
    const bool number_a = ToInteger(a, x), number_b = ToInteger(b, y);
    if (number_a && number_b && x != y) return x < y;
    if (number_a != number_b) return number_a;
    return a < b;
  }
};

// The axis of sizes: the one of numbers with the most values.
std::string SizeAxis(const std::vector<Keyed>& all) {
  std::map<std::string, std::set<std::string>> values;
  std::set<std::string> words;
  for (const Keyed& k : all) {
    for (const auto& [axis, value] : k.values) {
      int64_t number = 0;
      values[axis].insert(value);
      if (!ToInteger(value, number)) words.insert(axis);
    }
  }
  std::string best;
  size_t most = 1;
  for (const auto& [axis, seen] : values) {
    if (axis == "ranks" || words.count(axis) > 0 || seen.size() <= most) {
      continue;
    }
    best = axis;
    most = seen.size();
  }
  return best;
}

struct Cross {
  size_t keys = 0, slower = 0;
};

// dtype down, size across, one table for each number of ranks.
void CrossTables(Writer& w, const std::vector<Keyed>& all) {
  const std::string size = SizeAxis(all);
  using Line = std::map<std::string, Cross, BySize>;
  std::map<std::string, std::map<std::string, Line>, BySize> tables;
  std::set<std::string, BySize> sizes;
  for (const Keyed& k : all) {
    const auto value = [&](const std::string& axis) {
      const auto found = k.values.find(axis);
      return found == k.values.end() ? std::string("any") : found->second;
    };
    Cross& cross = tables[value("ranks")][value("dtype")][value(size)];
    ++cross.keys;
    cross.slower += k.slower ? 1 : 0;
    sizes.insert(value(size));
  }
  if (sizes.size() > kMostColumns) {
    w.Write(
        "<p class=\"note\">The axis {} has {} values, too many for a table "
        "of dtype against size.</p>\n",
        size, sizes.size());
    return;
  }
  w.Write(
      "<p>How many of how many keys are slower: dtype down, {} across, one "
      "table for each number of ranks.</p>\n<div class=\"crosses\">\n",
      size.empty() ? std::string("nothing") : size);
  size_t written = 0;
  for (const auto& [ranks, lines] : tables) {
    if (++written > kMostCrossTables) break;
    const std::string caption = fmt::format("{} ranks", ranks);
    w.Write(
        "<div class=\"scroll\" tabindex=\"0\" role=\"region\" "
        "aria-label=\"{}\">\n<table class=\"heat\"><caption>{}</caption>\n"
        "<thead><tr><th scope=\"col\">dtype</th>",
        caption, caption);
    for (const std::string& s : sizes) {
      w.Write("<th scope=\"col\" class=\"n\">{}</th>", s);
    }
    w.Write("</tr></thead>\n<tbody>\n");
    for (const auto& [dtype, line] : lines) {
      w.Write("<tr><th scope=\"row\">{}</th>", dtype);
      for (const std::string& s : sizes) {
        const auto found = line.find(s);
        if (found == line.end()) {
          w.Write("<td class=\"n none\">\u2013</td>");
          continue;
        }
        const Cross& c = found->second;
        w.Write("<td class=\"n h{}\">{} of {}</td>", c.slower * 7 / c.keys,
                c.slower, c.keys);
      }
      w.Write("</tr>\n");
    }
    w.Write("</tbody></table></div>\n");
  }
  w.Write("</div>\n");
}

}  // namespace

void SliceSection(Page page) {
  page.w.Write("<h3>Which slices are affected</h3>\n");
  if (page.report.comparisons.empty()) {
    Missing(page.w, "Nothing was compared. To compare two builds:",
            "shardproof ab --base OLD --cand NEW");
    return;
  }
  std::vector<Keyed> all;
  size_t slower = 0;
  for (const Comparison& c : page.report.comparisons) {
    all.push_back({ValuesOf(c), c.change == Change::kRegressed});
    slower += all.back().slower ? 1 : 0;
  }
  if (slower == 0) {
    page.w.Write("<p>None of {} is slower.</p>\n", Counted(all.size(), "key"));
    return;
  }
  const std::vector<Slice> slices = Slices(all, slower);
  if (!slices.empty()) {
    const Slice& best = slices.front();
    page.w.Write(
        "<p>{} of {} slower. What they share best: <strong>{}</strong>, where "
        "{} of {} are slower; that is {} of those that are slower.</p>\n",
        slower, Counted(all.size(), "key") + (slower == 1 ? " is" : " are"),
        NameOf(best), best.slower, Counted(best.keys, "key"),
        best.slower == slower ? std::string("all")
                              : Percent(static_cast<double>(best.slower) /
                                            static_cast<double>(slower),
                                        false) +
                                    " %");
  } else {
    page.w.Write("<p>All of {} are slower.</p>\n", Counted(all.size(), "key"));
  }
  Table table("Slices by how well they tell what is slower",
              {{"slice", Column::kKey},
               {"slower", Column::kWhole},
               {"keys", Column::kWhole},
               {"slower of the slice", Column::kPortion},
               {"of all that are slower", Column::kPortion}});
  for (const Slice& s : slices) {
    if (table.rows() >= kMostSlices) break;
    table.Add({NameOf(s), static_cast<double>(s.slower),
               static_cast<double>(s.keys),
               static_cast<double>(s.slower) / static_cast<double>(s.keys),
               static_cast<double>(s.slower) / static_cast<double>(slower)});
  }
  table.Note("the best ones, of up to three conditions");
  table.Write(page.w);
  CrossTables(page.w, all);
}

}  // namespace shardproof::html
