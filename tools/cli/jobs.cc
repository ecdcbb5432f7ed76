#include "tools/cli/jobs.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <map>
#include <optional>
#include <regex>
#include <tuple>
#include <utility>

#include "tools/cli/no_instance.h"

namespace shardproof {
namespace {

StatusOr<std::regex> Pattern(const std::string& flag, const std::string& text) {
  try {
    return std::regex(text);
  } catch (const std::regex_error& error) {
    return InvalidArgument("{} \"{}\" is not a regular expression: {}", flag,
                           text, error.what());
  }
}

// Levenshtein distance.
size_t EditDistance(const std::string& a, const std::string& b) {
  std::vector<size_t> row(b.size() + 1);
  for (size_t j = 0; j < row.size(); ++j) row[j] = j;
  for (size_t i = 1; i <= a.size(); ++i) {
    size_t diagonal = std::exchange(row[0], i);
    for (size_t j = 1; j <= b.size(); ++j) {
      const size_t substituted = diagonal + (a[i - 1] == b[j - 1] ? 0 : 1);
      diagonal = row[j];
      row[j] = std::min({substituted, row[j] + 1, row[j - 1] + 1});
    }
  }
  return row.back();
}

Status CheckAxesKnown(const std::vector<const CaseInfo*>& cases,
                      const AxisOverrides& overrides) {
  for (const auto& [name, values] : overrides) {
    std::vector<std::string> known;
    for (const CaseInfo* info : cases) {
      for (const AxisInfo& axis : info->axes) known.push_back(axis.name);
    }
    std::sort(known.begin(), known.end());
    known.erase(std::unique(known.begin(), known.end()), known.end());
    if (!std::binary_search(known.begin(), known.end(), name)) {
      return InvalidArgument(
          "no chosen case has an axis \"{}\": the axes are {}", name,
          fmt::join(known, ", "));
    }
    for (const std::string& value : values) {
      if (value.starts_with('-')) {
        return InvalidArgument("axis {}: {} is negative, and axes count things",
                               name, value);
      }
    }
  }
  return Status();
}

using Variants = std::vector<const ErasedVariant*>;

// "mutant/<name>" names a planted bug; without that prefix only variants are
// meant.
StatusOr<Variants> ChooseVariants(const CaseInfo& info,
                                  const std::string& text) {
  Variants chosen;
  SP_ASSIGN_OR_RETURN(const std::regex pattern,
                      Pattern("--variant", text.empty() ? ".*" : text));
  for (const ErasedVariant& variant : info.variants) {
    if (std::regex_match(variant.name, pattern)) chosen.push_back(&variant);
  }
  if (chosen.empty() && text.rfind("mutant/", 0) == 0) {
    const ErasedVariant* mutant = info.FindVariant(text);
    if (mutant != nullptr) chosen.push_back(mutant);
  }
  return chosen;
}

// Elements of the probe that tells how many bytes an operation of a count has.
// Large, since v forms deal out blocks of about a count.
constexpr int64_t kProbeCount = 4096;

// For the operation of `job`, whose count is kProbeCount.
int64_t CountOf(const Job& job, int64_t bytes) {
  const int64_t probed = job.info->bytes(job.instance);
  if (bytes == 0 || probed == 0) return bytes;
  const double count = static_cast<double>(kProbeCount) *
                       static_cast<double>(bytes) / static_cast<double>(probed);
  return std::max<int64_t>(1, static_cast<int64_t>(count));
}

// `job` at another count; nothing where its case has no such instance.
StatusOr<std::optional<Job>> AtCount(Job job, Purpose purpose, int64_t count) {
  AxisOverrides pinned;
  for (const auto& [axis, value] : job.instance.values) pinned[axis] = {value};
  pinned["count"] = {std::to_string(count)};
  SP_ASSIGN_OR_RETURN(std::vector<Instance> instances,
                      job.info->expand(purpose, job.instance.ranks, pinned));
  if (instances.empty()) return std::optional<Job>();
  job.instance = std::move(instances.front());
  return std::optional<Job>(std::move(job));
}

}  // namespace

bool IsSized(const Job& job) {
  return std::ranges::any_of(job.info->axes, [](const AxisInfo& axis) {
    return axis.name == "count";
  });
}

std::string Near(const std::string& text, std::vector<std::string> names) {
  const auto distance = [&](const std::string& name) {
    return std::min(EditDistance(text, name),
                    EditDistance(text, name.substr(name.rfind('/') + 1)));
  };
  std::stable_sort(names.begin(), names.end(),
                   [&](const std::string& a, const std::string& b) {
                     return distance(a) < distance(b);
                   });
  names.resize(std::min<size_t>(names.size(), 3));
  return fmt::format("{}", fmt::join(names, ", "));
}

StatusOr<std::vector<const CaseInfo*>> ChooseCases(const Options& options) {
  SP_ASSIGN_OR_RETURN(const std::regex pattern,
                      Pattern("--filter", options.filter));
  std::vector<const CaseInfo*> chosen;
  std::vector<std::string> names;
  for (const CaseInfo& info : Registry::Get().cases()) {
    names.push_back(info.name);
    if (std::regex_search(info.name, pattern)) chosen.push_back(&info);
  }
  if (chosen.empty()) {
    return InvalidArgument(
        "--filter \"{}\" matches no case: did you mean {}? `shardproof list` "
        "shows all",
        options.filter, Near(options.filter, names));
  }
  return chosen;
}

StatusOr<std::vector<Job>> ChooseJobs(const Options& options, Purpose purpose,
                                      const std::vector<int>& ranks) {
  SP_ASSIGN_OR_RETURN(const auto cases, ChooseCases(options));
  SP_ASSIGN_OR_RETURN(const AxisOverrides overrides, OverridesOf(options));
  SP_RETURN_IF_ERROR(CheckAxesKnown(cases, overrides));
  std::vector<Job> jobs;
  bool any_variant = false;
  for (const CaseInfo* info : cases) {
    SP_ASSIGN_OR_RETURN(const Variants variants,
                        ChooseVariants(*info, options.variant));
    any_variant = any_variant || !variants.empty();
    for (const int n : ranks) {
      SP_ASSIGN_OR_RETURN(
          const std::vector<Instance> instances,
          info->expand(purpose, n, OverridesFor(*info, overrides)));
      for (const ErasedVariant* variant : variants) {
        for (const Instance& instance : instances) {
          jobs.push_back({info, variant, instance});
        }
      }
    }
  }
  if (!any_variant) {
    std::vector<std::string> names;
    for (const CaseInfo* info : cases) {
      for (const ErasedVariant& v : info->variants) names.push_back(v.name);
    }
    return InvalidArgument(
        "--variant \"{}\" matches none of {} (it has to match a whole name)",
        options.variant, Near(options.variant, names));
  }
  if (jobs.empty()) {
    return InvalidArgument("no instance is left at {} ranks: {}",
                           fmt::join(ranks, " or "),
                           WhyNone(cases, overrides, purpose, ranks));
  }
  return jobs;
}

StatusOr<std::vector<Job>> ChooseSizedJobs(const Options& options,
                                           Purpose purpose,
                                           const std::vector<int64_t>& sizes,
                                           int ranks) {
  Options probe = options;
  probe.axis.push_back(fmt::format("count={}", kProbeCount));
  SP_ASSIGN_OR_RETURN(const std::vector<Job> probes,
                      ChooseJobs(probe, purpose, {ranks}));
  std::vector<int64_t> last(probes.size(), -1);
  std::vector<Job> jobs;
  for (const int64_t bytes : sizes) {
    for (size_t i = 0; i < probes.size(); ++i) {
      const Job& job = probes[i];
      const int64_t count = IsSized(job) ? CountOf(job, bytes) : 0;
      if (std::exchange(last[i], count) == count) continue;
      if (!IsSized(job)) {
        jobs.push_back(job);
        continue;
      }
      SP_ASSIGN_OR_RETURN(std::optional<Job> one, AtCount(job, purpose, count));
      if (one.has_value()) jobs.push_back(*std::move(one));
    }
  }
  if (jobs.empty()) {
    return InvalidArgument("no instance is left at {} ranks at these sizes",
                           ranks);
  }
  return jobs;
}

StatusOr<std::vector<Job>> ChooseWorkloadJobs(const Options& options,
                                              const Workload& workload,
                                              int ranks) {
  SP_ASSIGN_OR_RETURN(const auto cases, ChooseCases(options));
  std::vector<Job> jobs;
  for (const CaseInfo* info : cases) {
    SP_ASSIGN_OR_RETURN(const Variants variants,
                        ChooseVariants(*info, options.variant));
    for (const ErasedVariant* variant : variants) {
      for (const Instance& instance : info->workload(workload, ranks)) {
        jobs.push_back({info, variant, instance});
      }
    }
  }
  return jobs;
}

// Cases alternate: else a budget would go to those whose names come first.
void Interleave(std::vector<Job>& jobs) {
  // The place of a variant in its case, and how many of its jobs there were.
  struct Seen {
    size_t place = 0;
    size_t jobs = 0;
  };
  std::map<const CaseInfo*, std::map<const ErasedVariant*, Seen>> seen;
  std::vector<std::tuple<size_t, size_t, Job>> turns;
  turns.reserve(jobs.size());
  for (Job& job : jobs) {
    auto& variants = seen[job.info];
    Seen& variant = variants.try_emplace(job.variant, Seen{variants.size(), 0})
                        .first->second;
    turns.emplace_back(variant.jobs++, variant.place, std::move(job));
  }
  std::stable_sort(turns.begin(), turns.end(),
                   [](const auto& a, const auto& b) {
                     return std::tie(std::get<0>(a), std::get<1>(a)) <
                            std::tie(std::get<0>(b), std::get<1>(b));
                   });
  for (size_t i = 0; i < jobs.size(); ++i) {
    jobs[i] = std::move(std::get<2>(turns[i]));
  }
}

}  // namespace shardproof
