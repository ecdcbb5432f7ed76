#include "collectives/kernels/streaming.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

namespace shardproof::kernels {
namespace {

namespace fs = std::filesystem;

struct Cache {
  std::string size, sharing;
};

// A folder such as /sys/devices/system/cpu, with the caches of each processor.
std::string Listing(const std::string& name,
                    const std::vector<std::vector<Cache>>& processors) {
  const fs::path folder = fs::path(testing::TempDir()) / name;
  for (size_t cpu = 0; cpu < processors.size(); ++cpu) {
    for (size_t index = 0; index < processors[cpu].size(); ++index) {
      const fs::path one = folder / ("cpu" + std::to_string(cpu)) / "cache" /
                           ("index" + std::to_string(index));
      fs::create_directories(one);
      std::ofstream(one / "size") << processors[cpu][index].size << "\n";
      std::ofstream(one / "shared_cpu_list")
          << processors[cpu][index].sharing << "\n";
    }
  }
  return folder.string();
}

TEST(CacheBytesInTest, CountsACacheThatIsSharedOnce) {
  const Cache own = {"32K", "0"}, middle = {"512K", "0"},
              shared = {"32768K", "0-1"};
  EXPECT_EQ(CacheBytesIn(
                Listing("one", {{own, middle, shared}, {own, middle, shared}})),
            size_t{32} << 20);
}

TEST(CacheBytesInTest, AddsUpThoseOfSeveralProcessors) {
  EXPECT_EQ(CacheBytesIn(Listing("two", {{{"32K", "0"}, {"32M", "0-1"}},
                                         {{"32K", "1"}, {"32M", "0-1"}},
                                         {{"32K", "2"}, {"16384K", "2"}}})),
            size_t{48} << 20);
}

TEST(CacheBytesInTest, IsNothingWithoutAListing) {
  EXPECT_EQ(CacheBytesIn("/nowhere"), 0u);
  EXPECT_EQ(CacheBytesIn(Listing("odd", {{{"many", "0"}}})), 0u);
}

// What sysconf says may be the sum over a package, of which this machine has a
// part.
TEST(LastLevelCacheBytesTest, IsNoMoreThanTheProcessorsReach) {
  const size_t listed = CacheBytesIn("/sys/devices/system/cpu");
  EXPECT_GT(LastLevelCacheBytes(), 0u);
  EXPECT_LE(LastLevelCacheBytes(), listed > 0 ? listed : size_t{32} << 20);
  EXPECT_FALSE(ShouldStream(LastLevelCacheBytes()));
  EXPECT_TRUE(ShouldStream(LastLevelCacheBytes() + 1));
}

}  // namespace
}  // namespace shardproof::kernels
