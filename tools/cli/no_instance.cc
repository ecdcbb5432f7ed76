#include "tools/cli/no_instance.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <utility>

#include "tools/cli/mesh_report.h"

namespace shardproof {
namespace {

// More would be a page.
constexpr size_t kMostShown = 6;

// Of an axis, for whatever purpose.
std::vector<std::string> AllValues(const AxisInfo& axis) {
  std::vector<std::string> all = axis.verify;
  for (const auto* more : {&axis.bench, &axis.smoke}) {
    for (const std::string& value : *more) {
      if (std::find(all.begin(), all.end(), value) == all.end()) {
        all.push_back(value);
      }
    }
  }
  return all;
}

class Search {
 public:
  Search(const CaseInfo& info, Purpose purpose, std::vector<int> ranks)
      : info_(info), purpose_(purpose), ranks_(std::move(ranks)) {}

  // Those of `values` of `axis` with which there is an instance.
  std::vector<std::string> Able(AxisOverrides overrides,
                                const std::string& axis,
                                const std::vector<std::string>& values) const {
    std::vector<std::string> able;
    for (const std::string& value : values) {
      overrides[axis] = {value};
      if (Any(overrides, ranks_)) able.push_back(value);
    }
    return able;
  }

  bool Any(const AxisOverrides& overrides,
           const std::vector<int>& ranks) const {
    return std::any_of(ranks.begin(), ranks.end(), [&](int n) {
      const auto instances = info_.expand(purpose_, n, overrides);
      return instances.ok() && !instances->empty();
    });
  }

 private:
  const CaseInfo& info_;
  Purpose purpose_;
  std::vector<int> ranks_;
};

std::string Listed(std::vector<std::string> values) {
  const size_t all = values.size();
  values.resize(std::min(all, kMostShown));
  return fmt::format(
      "{}{}", fmt::join(values, ", "),
      all > kMostShown ? fmt::format(" and {} more", all - kMostShown) : "");
}

// "schedule=chimera", or "schedule=chimera,naive".
std::string Given(const AxisOverrides& overrides, const std::string& axis) {
  return fmt::format("{}={}", axis, fmt::join(overrides.at(axis), ","));
}

// Empty where nothing helps.
std::string WhyNone(const CaseInfo& info, const AxisOverrides& overrides,
                    Purpose purpose, const std::vector<int>& ranks) {
  const Search search(info, purpose, ranks);
  std::vector<std::string> ways;
  for (const AxisInfo& axis : info.axes) {
    std::vector<std::string> able =
        search.Able(overrides, axis.name, AllValues(axis));
    if (able.empty()) continue;
    if (overrides.contains(axis.name)) {
      ways.push_back(fmt::format("instead of {}, the rest goes with {}={}",
                                 Given(overrides, axis.name), axis.name,
                                 Listed(std::move(able))));
    } else {
      ways.push_back(fmt::format("--axis {}={} has it", axis.name,
                                 Listed(std::move(able))));
    }
  }
  std::vector<int> others;
  for (int n = 1; n <= 16; ++n) {
    const bool tried = std::find(ranks.begin(), ranks.end(), n) != ranks.end();
    if (!tried && search.Any(overrides, {n})) others.push_back(n);
  }
  if (!others.empty()) {
    ways.push_back(fmt::format("--ranks {} has it", fmt::join(others, ",")));
  }
  return fmt::format("{}", fmt::join(ways, "; "));
}

}  // namespace

AxisOverrides OverridesFor(const CaseInfo& info, const AxisOverrides& all) {
  AxisOverrides own;
  for (const AxisInfo& axis : info.axes) {
    const auto found = all.find(axis.name);
    if (found != all.end()) own.insert(*found);
  }
  return own;
}

std::string WhyNone(const std::vector<const CaseInfo*>& cases,
                    const AxisOverrides& overrides, Purpose purpose,
                    const std::vector<int>& ranks) {
  for (const CaseInfo* info : cases) {
    const std::string why =
        WhyNone(*info, OverridesFor(*info, overrides), purpose, ranks);
    if (!why.empty()) return fmt::format("for {}, {}", info->name, why);
  }
  // What is asked of one mesh can be said without another that would do.
  const auto mesh = overrides.find("mesh");
  if (mesh != overrides.end() && mesh->second.size() == 1) {
    std::vector<std::string> reasons;
    for (const CaseInfo* info : cases) {
      std::string why = WhyNotOnMesh(*info, mesh->second[0]);
      if (!why.empty()) reasons.push_back(std::move(why));
    }
    if (!reasons.empty()) return fmt::format("{}", fmt::join(reasons, "; "));
  }
  return "the values of --axis exclude one another, and no other value of one "
         "of them helps";
}

}  // namespace shardproof
