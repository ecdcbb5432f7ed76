#include "layers/speed/side_by_side.h"

#include <algorithm>
#include <chrono>
#include <cstddef>

namespace shardproof {

StatusOr<std::vector<Times>> SideBySide(
    const std::vector<std::function<Status()>>& ways, int rounds) {
  using Clock = std::chrono::steady_clock;
  if (rounds < 1) return InvalidArgument("{} rounds", rounds);
  std::vector<std::vector<double>> seconds(ways.size());
  for (const auto& way : ways) SP_RETURN_IF_ERROR(way());
  for (int round = 0; round < rounds; ++round) {
    for (size_t i = 0; i < ways.size(); ++i) {
      const size_t way = round % 2 == 0 ? i : ways.size() - 1 - i;
      const Clock::time_point begin = Clock::now();
      SP_RETURN_IF_ERROR(ways[way]());
      const std::chrono::duration<double> took = Clock::now() - begin;
      seconds[way].push_back(took.count());
    }
  }
  std::vector<Times> times;
  for (std::vector<double>& s : seconds) {
    std::sort(s.begin(), s.end());
    times.push_back({.median = s[s.size() / 2],
                     .first_quartile = s[s.size() / 4],
                     .third_quartile = s[s.size() * 3 / 4]});
  }
  return times;
}

}  // namespace shardproof
