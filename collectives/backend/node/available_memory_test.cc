#include "collectives/backend/node/available_memory.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <limits>
#include <string>

namespace shardproof {
namespace {

constexpr size_t kUnlimited = std::numeric_limits<size_t>::max();

TEST(AvailableMemoryTest, ReadsMeminfo) {
  const std::string text =
      "MemTotal:       24684096 kB\nMemFree:        23435440 kB\n"
      "MemAvailable:   23770240 kB\n";
  EXPECT_EQ(MeminfoField(text, "MemAvailable"), size_t{23770240} * 1024);
  EXPECT_EQ(MeminfoField(text, "MemTotal"), size_t{24684096} * 1024);
  EXPECT_EQ(MeminfoField(text, "Mem"), std::nullopt);
  EXPECT_EQ(MeminfoField("MemAvailable: unknown", "MemAvailable"),
            std::nullopt);
}

TEST(AvailableMemoryTest, IsPlausibleHere) {
  const size_t available = AvailableMemory();
  EXPECT_GT(available, size_t{1} << 20);
  EXPECT_LT(available, size_t{1} << 50);
}

class ControlGroupTest : public testing::Test {
 protected:
  ControlGroupTest() : root_(testing::TempDir() + "groups") {
    std::filesystem::remove_all(root_);
  }
  void Write(const std::string& file, const std::string& text) {
    const std::filesystem::path path(root_ + file);
    std::filesystem::create_directories(path.parent_path());
    std::ofstream(path) << text;
  }
  std::string root_;
};

TEST_F(ControlGroupTest, TakesTheTightestLimitOfAllParents) {
  Write("/a/b/memory.max", "max\n");
  Write("/a/b/memory.current", "100\n");
  Write("/a/memory.max", "1000\n");
  Write("/a/memory.current", "300\n");
  EXPECT_EQ(ControlGroupHeadroom(root_, "/a/b"), 700u);
  Write("/a/b/memory.max", "150\n");
  EXPECT_EQ(ControlGroupHeadroom(root_, "/a/b"), 50u);
}

TEST_F(ControlGroupTest, CountsInactiveFilePagesAsFree) {
  Write("/memory.max", "1000\n");
  Write("/memory.current", "900\n");
  Write("/memory.stat", "anon 100\ninactive_file 250\nactive_file 9\n");
  EXPECT_EQ(ControlGroupHeadroom(root_, "/"), 350u);
}

TEST_F(ControlGroupTest, IsNotNegative) {
  Write("/a/memory.max", "1000\n");
  Write("/a/memory.current", "1001\n");
  EXPECT_EQ(ControlGroupHeadroom(root_, "/a"), 0u);
}

TEST_F(ControlGroupTest, NoFilesMeanNoLimit) {
  EXPECT_EQ(ControlGroupHeadroom(root_, "/a"), kUnlimited);
}

TEST(FormatBytesTest, PicksTheUnit) {
  EXPECT_EQ(FormatBytes(0), "0 B");
  EXPECT_EQ(FormatBytes(1023), "1023 B");
  EXPECT_EQ(FormatBytes(1536), "1.5 KiB");
  EXPECT_EQ(FormatBytes(size_t{3} << 20), "3 MiB");
  EXPECT_EQ(FormatBytes(size_t{41} << 28), "10.25 GiB");
  EXPECT_EQ(FormatBytes(size_t{2000} << 40), "2000 TiB");
}

}  // namespace
}  // namespace shardproof
