#include "collectives/backend/node/available_memory.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <fstream>
#include <limits>
#include <sstream>

namespace shardproof {
namespace {

constexpr size_t kUnlimited = std::numeric_limits<size_t>::max();

// The text of a file of the kernel; empty when it cannot be read.
std::string Slurp(const std::string& path) {
  std::ifstream file(path);
  std::ostringstream text;
  text << file.rdbuf();
  return std::move(text).str();
}

std::optional<size_t> ParseNumber(std::string_view text) {
  text.remove_prefix(std::min(text.find_first_not_of(" \t"), text.size()));
  size_t value = 0;
  const auto [end, error] =
      std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc()) return std::nullopt;
  return value;
}

// The number after `key` at the start of a line.
std::optional<size_t> Field(std::string_view text, std::string_view key) {
  for (size_t at = 0; at < text.size();) {
    const size_t end = std::min(text.find('\n', at), text.size());
    const std::string_view line = text.substr(at, end - at);
    if (line.starts_with(key)) return ParseNumber(line.substr(key.size()));
    at = end + 1;
  }
  return std::nullopt;
}

size_t Minus(size_t a, size_t b) { return a > b ? a - b : 0; }

size_t OwnControlGroupHeadroom() {
  const std::string groups = Slurp("/proc/self/cgroup");
  const size_t at = groups.rfind("0::", 0) == 0 ? 0 : groups.find("\n0::");
  if (at == std::string::npos) return kUnlimited;
  const size_t start = groups.find("0::", at) + 3;
  return ControlGroupHeadroom(
      "/sys/fs/cgroup", groups.substr(start, groups.find('\n', start) - start));
}

}  // namespace

std::optional<size_t> MeminfoField(std::string_view meminfo,
                                   std::string_view key) {
  const std::optional<size_t> kib = Field(meminfo, fmt::format("{}:", key));
  if (!kib) return std::nullopt;
  return *kib * 1024;
}

size_t ControlGroupHeadroom(const std::string& root, std::string group) {
  size_t headroom = kUnlimited;
  while (true) {
    const std::string folder = group == "/" ? root : root + group;
    // "max" when there is no limit, and no file at the root of all groups.
    const auto limit = ParseNumber(Slurp(folder + "/memory.max"));
    const auto current = ParseNumber(Slurp(folder + "/memory.current"));
    if (limit && current) {
      // File pages that nobody used lately are given back under pressure.
      const size_t inactive =
          Field(Slurp(folder + "/memory.stat"), "inactive_file ").value_or(0);
      headroom = std::min(headroom, Minus(*limit, Minus(*current, inactive)));
    }
    if (group.empty() || group == "/") return headroom;
    group.resize(group.rfind('/'));
  }
}

size_t AvailableMemory() {
  const std::string meminfo = Slurp("/proc/meminfo");
  return std::min(MeminfoField(meminfo, "MemAvailable").value_or(kUnlimited),
                  OwnControlGroupHeadroom());
}

std::string FormatBytes(size_t bytes) {
  constexpr std::string_view kUnits[] = {"B", "KiB", "MiB", "GiB", "TiB"};
  double value = static_cast<double>(bytes);
  size_t unit = 0;
  while (value >= 1024 && unit + 1 < std::size(kUnits)) {
    value /= 1024;
    ++unit;
  }
  return fmt::format("{:.4g} {}", value, kUnits[unit]);
}

}  // namespace shardproof
