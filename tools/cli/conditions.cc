#include "tools/cli/conditions.h"

#include <fmt/format.h>
#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <sstream>

namespace shardproof {
namespace {

namespace fs = std::filesystem;

// All of it, or nothing.
std::string FileText(const fs::path& path) {
  std::ifstream in(path);
  std::stringstream text;
  text << in.rdbuf();
  return text.str();
}

double FirstNumber(const fs::path& path) {
  double value = 0;
  std::ifstream(path) >> value;
  return value;
}

int64_t ThrottleEvents() {
  int64_t events = 0;
  std::error_code error;
  for (fs::directory_iterator it("/sys/devices/system/cpu", error), end;
       !error && it != end; it.increment(error)) {
    const fs::path counts = it->path() / "thermal_throttle";
    for (const char* name : {"core_throttle_count", "package_throttle_count"}) {
      events += static_cast<int64_t>(FirstNumber(counts / name));
    }
  }
  return events;
}

double MeanMhz() {
  std::ifstream in("/proc/cpuinfo");
  double sum = 0;
  int processors = 0;
  for (std::string line; std::getline(in, line);) {
    if (line.rfind("cpu MHz", 0) != 0) continue;
    const size_t colon = line.find(": ");
    if (colon == std::string::npos) continue;
    sum += std::strtod(line.c_str() + colon + 2, nullptr);
    ++processors;
  }
  return processors == 0 ? 0 : sum / processors;
}

int64_t Ticks(const timeval& time) {
  const int64_t per_second = sysconf(_SC_CLK_TCK);
  return time.tv_sec * per_second + time.tv_usec * per_second / 1000000;
}

// utime + stime of a process whose parent is `parent`, else 0. The name of the
// program, in parentheses, may hold anything.
int64_t TicksOfChild(const fs::path& process, int64_t parent) {
  const std::string stat = FileText(process / "stat");
  const size_t name_end = stat.rfind(')');
  if (name_end == std::string::npos) return 0;
  std::istringstream fields(stat.substr(name_end + 1));
  std::string state;
  int64_t its_parent = 0, utime = 0, stime = 0;
  fields >> state >> its_parent;
  if (its_parent != parent) return 0;
  std::string skipped;  // Fields 5 to 13; the name was the second.
  for (int field = 5; field <= 13; ++field) fields >> skipped;
  fields >> utime >> stime;
  return fields ? utime + stime : 0;
}

Conditions Now() {
  return {.load = FirstNumber("/proc/loadavg"),
          .throttle_events = ThrottleEvents(),
          .mhz = MeanMhz()};
}

}  // namespace

CpuTicks ParseCpuTicks(std::string_view stat) {
  constexpr std::string_view kName = "cpu ";
  if (stat.substr(0, kName.size()) != kName) return {};
  std::istringstream line(std::string(stat.substr(0, stat.find('\n'))));
  std::string name;
  line >> name;
  // user nice system idle iowait irq softirq steal; then times of guests,
  // which user and nice hold already. Older kernels have fewer columns.
  std::array<int64_t, 8> t = {};
  for (int64_t& column : t) {
    if (!(line >> column)) column = 0;
  }
  return {.busy = t[0] + t[1] + t[2] + t[5] + t[6],
          .steal = t[7],
          .total = t[0] + t[1] + t[2] + t[3] + t[4] + t[5] + t[6] + t[7]};
}

Conditions SharesBetween(const CpuTicks& before, const CpuTicks& after,
                         int64_t own) {
  Conditions shares;
  const auto total = static_cast<double>(after.total - before.total);
  if (total <= 0) return shares;
  const auto share = [&](int64_t ticks) {
    return std::clamp(static_cast<double>(ticks) / total, 0.0, 1.0);
  };
  shares.steal_share = share(after.steal - before.steal);
  shares.busy_share = share(after.busy - before.busy - own);
  return shares;
}

int64_t OwnTicks() {
  int64_t ticks = 0;
  for (const int who : {RUSAGE_SELF, RUSAGE_CHILDREN}) {
    rusage usage = {};
    if (getrusage(who, &usage) != 0) continue;
    ticks += Ticks(usage.ru_utime) + Ticks(usage.ru_stime);
  }
  if (std::getenv("OMPI_COMM_WORLD_SIZE") == nullptr) return ticks;
  const int64_t parent = getppid();
  const std::string self = std::to_string(getpid());
  std::error_code error;
  for (fs::directory_iterator it("/proc", error), end; !error && it != end;
       it.increment(error)) {
    const std::string name = it->path().filename().string();
    if (name == self || name.find_first_not_of("0123456789") == 0) continue;
    ticks += TicksOfChild(it->path(), parent);
  }
  return ticks;
}

ConditionsWatch::ConditionsWatch()
    : before_(Now()),
      ticks_(ParseCpuTicks(FileText("/proc/stat"))),
      own_(OwnTicks()) {}

Conditions ConditionsWatch::Stop() const {
  Conditions after = Now();
  const Conditions shares = SharesBetween(
      ticks_, ParseCpuTicks(FileText("/proc/stat")), OwnTicks() - own_);
  after.steal_share = shares.steal_share;
  after.busy_share = shares.busy_share;
  return after;
}

std::string Throttled(const Conditions& before, const Conditions& after) {
  const int64_t events = after.throttle_events - before.throttle_events;
  if (events > 0) {
    return fmt::format("the processors were throttled by heat {} time{}",
                       events, events == 1 ? "" : "s");
  }
  if (after.steal_share > kMostSteal) {
    return fmt::format(
        "other virtual machines took {:.1f} percent of the processors (most: "
        "{:.0f} percent)",
        100 * after.steal_share, 100 * kMostSteal);
  }
  return {};
}

}  // namespace shardproof
