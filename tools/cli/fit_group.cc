#include "tools/cli/fit_group.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <charconv>
#include <cstring>
#include <fstream>
#include <optional>
#include <set>
#include <utility>

#include "reports/fitting/crossover.h"
#include "tools/cli/table.h"

namespace shardproof {
namespace {

constexpr std::string_view kFolder = "collectives/";
// The variants whose costs count flag rounds and accesses of peers' memory.
bool InMemory(const std::string& variant) {
  constexpr std::array<std::string_view, 3> kDirect = {"direct", "one_shot",
                                                       "two_shot"};
  return std::ranges::find(kDirect, variant) != kDirect.end();
}

bool TakesAnother(const std::string& name, const FitGroup& group) {
  return name == "auto" ||
         (name == "direct" && group.variants.contains("one_shot") &&
          group.variants.contains("two_shot"));
}

std::vector<SizeSamples> SamplesOf(const FitGroup::Measured& measured) {
  std::vector<SizeSamples> out;
  for (const Curve::Point& p : measured.curve.points) {
    out.push_back({.bytes = p.cost.bytes, .samples_us = p.blocks_us});
  }
  return out;
}

}  // namespace

void AddToGroup(const Job& job, const Record& record,
                std::map<FitKey, FitGroup>& groups) {
  if (!record.time_us.has_value()) return;
  FitKey key{.case_name = record.case_name, .ranks = record.ranks};
  int64_t count = 0;
  DType dtype = DType::kF32;
  for (const auto& [axis, value] : record.params) {
    if (axis == "count") {
      std::from_chars(value.data(), value.data() + value.size(), count);
      continue;
    }
    if (axis == "dtype") {
      if (const auto parsed = ParseDType(value); parsed.ok()) dtype = *parsed;
    }
    key.params +=
        fmt::format("{}{}={}", key.params.empty() ? "" : " ", axis, value);
  }
  const Record::Time& time = *record.time_us;
  const int64_t bytes = job.info->bytes(job.instance);
  Curve::Point point{.cost = {.bytes = bytes,
                              .alpha_count = 1,
                              .beta_bytes = static_cast<double>(bytes),
                              .time_us = time.median},
                     .low_us = time.interval_low,
                     .high_us = time.interval_high,
                     .blocks_us = {time.median}};
  auto& measured = groups[key].variants[record.variant];
  for (Curve::Point& earlier : measured.curve.points) {
    if (earlier.cost.bytes != bytes) continue;
    earlier.blocks_us.push_back(time.median);
    return;
  }
  const std::optional<Cost> cost = job.variant->cost(job.instance);
  // One that sends nothing (a single rank) has only the operation's own bytes.
  if (cost.has_value() && cost->alpha_count > 0) {
    measured.costed = true;
    point.cost.alpha_count = cost->alpha_count;
    point.cost.beta_bytes = cost->beta_bytes;
    point.cost.gamma_bytes = cost->gamma_bytes;
  }
  measured.native = record.native;
  measured.in_memory = InMemory(record.variant);
  measured.curve.points.push_back(std::move(point));
  measured.argument_bytes.push_back(count * SizeOf(dtype));
}

void Finish(FitGroup& group) {
  for (auto& [name, measured] : group.variants) {
    for (Curve::Point& p : measured.curve.points) {
      if (p.blocks_us.size() < 2) continue;
      p.cost.time_us = MedianOrNaN(p.blocks_us);
      p.low_us = std::ranges::min(p.blocks_us);
      p.high_us = std::ranges::max(p.blocks_us);
    }
  }
}

std::vector<Crossover> CrossoversOf(const FitKey& key, const FitGroup& group,
                                    const std::string& backend, uint64_t seed) {
  std::vector<Crossover> out;
  for (auto a = group.variants.begin(); a != group.variants.end(); ++a) {
    for (auto b = std::next(a); b != group.variants.end(); ++b) {
      if (TakesAnother(a->first, group) || TakesAnother(b->first, group)) {
        continue;
      }
      for (const Crossing& c :
           Crossings(SamplesOf(a->second), SamplesOf(b->second), seed)) {
        out.push_back({.case_name = key.case_name,
                       .backend = backend,
                       .params = key.params,
                       .from = c.second_wins ? a->first : b->first,
                       .to = c.second_wins ? b->first : a->first,
                       .ranks = key.ranks,
                       .bytes = c.bytes.value,
                       .low = c.bytes.low,
                       .high = c.bytes.high});
      }
    }
  }
  return out;
}

std::vector<Winner> WinnersOf(const FitGroup& group) {
  struct At {
    std::string variant;
    const Curve::Point* point = nullptr;
  };
  std::map<std::pair<int64_t, int64_t>, std::vector<At>> sizes;
  for (const auto& [name, measured] : group.variants) {
    if (measured.native || TakesAnother(name, group)) continue;
    for (size_t i = 0; i < measured.curve.points.size(); ++i) {
      const Curve::Point& p = measured.curve.points[i];
      sizes[{measured.argument_bytes[i], p.cost.bytes}].push_back({name, &p});
    }
  }
  std::vector<Winner> winners;
  for (const auto& [size, entries] : sizes) {
    const At& best = *std::ranges::min_element(
        entries, {}, [](const At& a) { return a.point->cost.time_us; });
    if (!winners.empty()) {
      const auto last =
          std::ranges::find(entries, winners.back().variant, &At::variant);
      if (last != entries.end() && last->point->low_us <= best.point->high_us) {
        continue;
      }
    }
    winners.push_back({size.first, size.second, best.variant});
  }
  return winners;
}

std::string WinnersSentence(const FitKey& key, const FitGroup& group) {
  std::string text;
  for (const Winner& w : WinnersOf(group)) {
    text += text.empty() ? w.variant
                         : fmt::format(", {} from {} on", w.variant,
                                       BytesText(static_cast<double>(w.bytes)));
  }
  if (text.empty()) return text;
  return fmt::format("{} ({}) on {} ranks: fastest is {}", key.case_name,
                     key.params, key.ranks, text);
}

TuningTable TuningOf(const std::map<FitKey, FitGroup>& groups) {
  std::vector<TuningTable::Row> rows;
  std::set<std::pair<std::string, int>> seen;
  for (const auto& [key, group] : groups) {
    if (!key.case_name.starts_with(kFolder)) continue;
    const std::string primitive = key.case_name.substr(kFolder.size());
    if (std::ranges::find(kTunedPrimitives, primitive) ==
            kTunedPrimitives.end() ||
        !seen.insert({key.case_name, key.ranks}).second) {
      continue;
    }
    bool first = true;
    for (const Winner& w : WinnersOf(group)) {
      // Below the smallest size measured, what is best there.
      rows.push_back(
          {.primitive = primitive,
           .shared = group.shared,
           .ranks = key.ranks,
           .from_bytes = std::exchange(first, false) ? 0 : w.argument_bytes,
           .variant = w.variant});
    }
  }
  return TuningTable(std::move(rows));
}

Status WriteText(const std::string& path, const std::string& text) {
  std::ofstream out(path, std::ios::binary);
  out << text;
  out.close();
  if (out) return OkStatus();
  return InvalidArgument("cannot write {}: {}", path, std::strerror(errno));
}

}  // namespace shardproof
