// What p2p, fit and scale have in common.
#include <fmt/format.h>
#include <sched.h>
#include <unistd.h>

#include <array>

#include "tools/cli/interconnect_commands.h"

namespace shardproof {

StatusOr<std::vector<int64_t>> SizesOf(const Options& options, int64_t low,
                                       int64_t high, int64_t factor) {
  const auto read = [](const std::string& text, int64_t& value) -> Status {
    if (text.empty()) return OkStatus();
    SP_ASSIGN_OR_RETURN(value, ParseBytes(text));
    return OkStatus();
  };
  SP_RETURN_IF_ERROR(read(options.min_bytes, low));
  if (options.max_bytes.empty() && high < low) high = low;
  SP_RETURN_IF_ERROR(read(options.max_bytes, high));
  if (options.min_bytes.empty() && high < low) low = high;
  SP_RETURN_IF_ERROR(read(options.step_factor, factor));
  if (low < 1 || high < low || factor < 2) {
    return InvalidArgument(
        "-b {} -e {} -f {}: sizes are at least 1 byte and go up, by a factor "
        "of at least 2",
        low, high, factor);
  }
  std::vector<int64_t> sizes;
  for (int64_t bytes = low;; bytes *= factor) {
    sizes.push_back(bytes);
    if (bytes > high / factor) return sizes;
  }
}

MeasureOptions LinkTiming(const Options& options, double seconds) {
  // Below 6 samples there is no interval of 95 percent.
  MeasureOptions timing = MeasureOptionsOf(options);
  timing.min_warmup = 1;
  timing.warmup_seconds = seconds / 10;
  timing.max_seconds = seconds;
  timing.min_samples = 7;
  return timing;
}

StatusOr<std::vector<std::string>> Places(const Communicator& comm) {
  std::array<char, 256> host{};
  gethostname(host.data(), host.size() - 1);
  std::string mine = host.data();
  cpu_set_t cores;
  CPU_ZERO(&cores);
  if (sched_getaffinity(0, sizeof(cores), &cores) == 0 &&
      CPU_COUNT(&cores) == 1) {
    int core = 0;
    while (!CPU_ISSET(core, &cores)) ++core;
    mine += fmt::format(" core {}", core);
  }
  return comm.ExchangeControl(mine);
}

std::string LinkClass(const Topology& topology, int a, int b) {
  return topology.node_of[static_cast<size_t>(a)] ==
                 topology.node_of[static_cast<size_t>(b)]
             ? "same node"
             : "between nodes";
}

std::string RateText(double bytes, double us) {
  // The far end of an interval that reaches a time of nothing.
  if (!(us > 0)) return "any rate";
  const double mbps = bytes / us;
  return mbps < 1000 ? fmt::format("{:.3g} MB/s", mbps)
                     : fmt::format("{:.3g} GB/s", mbps / 1000);
}

}  // namespace shardproof
