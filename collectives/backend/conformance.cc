#include "collectives/backend/conformance.h"

#include <vector>

namespace shardproof {
namespace conformance {

std::byte Pattern(int from, int to, int salt, size_t i) {
  uint64_t x = i * 0x9e3779b97f4a7c15u + static_cast<uint64_t>(from) * 7919 +
               static_cast<uint64_t>(to) * 104729 +
               static_cast<uint64_t>(salt) * 1299709;
  x ^= x >> 29;
  x *= 0xbf58476d1ce4e5b9u;
  return static_cast<std::byte>(x >> 56);
}

void Fill(std::span<std::byte> data, int from, int to, int salt) {
  for (size_t i = 0; i < data.size(); ++i) data[i] = Pattern(from, to, salt, i);
}

Status Verify(std::span<const std::byte> data, int from, int to, int salt,
              std::string_view what) {
  for (size_t i = 0; i < data.size(); ++i) {
    const std::byte expected = Pattern(from, to, salt, i);
    if (data[i] != expected) {
      return Internal("{}: byte {} of {} from rank {} to rank {} is {}, not {}",
                      what, i, data.size(), from, to, static_cast<int>(data[i]),
                      static_cast<int>(expected));
    }
  }
  return OkStatus();
}

}  // namespace conformance

std::span<const ConformanceCheck> CommunicatorConformance() {
  static const std::vector<ConformanceCheck> checks = [] {
    std::vector<ConformanceCheck> all;
    for (const auto part : {conformance::Messages(), conformance::Meetings(),
                            conformance::Groups()}) {
      all.insert(all.end(), part.begin(), part.end());
    }
    return all;
  }();
  return checks;
}

}  // namespace shardproof
