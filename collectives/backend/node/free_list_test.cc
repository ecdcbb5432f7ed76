#include "collectives/backend/node/free_list.h"

#include <gtest/gtest.h>

#include <cstddef>
#include <map>
#include <random>
#include <vector>

namespace shardproof {
namespace {

TEST(FreeListTest, TakesTheLowestFit) {
  FreeList free(1000);
  EXPECT_EQ(free.Take(100, 1), 0u);
  EXPECT_EQ(free.Take(100, 1), 100u);
  free.Return(0, 100);
  EXPECT_EQ(free.Take(101, 1), 200u);
  EXPECT_EQ(free.Take(100, 1), 0u);
}

TEST(FreeListTest, Aligns) {
  FreeList free(1000);
  EXPECT_EQ(free.Take(1, 1), 0u);
  EXPECT_EQ(free.Take(10, 64), 64u);
  // What lies before an aligned block stays usable.
  EXPECT_EQ(free.Take(63, 1), 1u);
  EXPECT_EQ(free.Take(800, 256), std::nullopt);
}

TEST(FreeListTest, JoinsNeighbours) {
  FreeList free(300);
  ASSERT_EQ(free.Take(100, 1), 0u);
  ASSERT_EQ(free.Take(100, 1), 100u);
  ASSERT_EQ(free.Take(100, 1), 200u);
  EXPECT_EQ(free.LargestFree(), 0u);
  free.Return(0, 100);
  free.Return(200, 100);
  EXPECT_EQ(free.blocks(), 2u);
  EXPECT_EQ(free.LargestFree(), 100u);
  free.Return(100, 100);
  EXPECT_EQ(free.blocks(), 1u);
  EXPECT_EQ(free.LargestFree(), 300u);
}

TEST(FreeListTest, HasNothingInAnEmptyRange) {
  FreeList free(0);
  EXPECT_EQ(free.Take(1, 1), std::nullopt);
}

// Blocks never overlap and never get lost, whatever the order.
TEST(FreeListTest, RandomTraffic) {
  constexpr size_t kBytes = 10000;
  FreeList free(kBytes);
  std::vector<bool> taken(kBytes, false);
  std::map<size_t, size_t> blocks;
  std::mt19937 random(7);
  size_t refusals = 0;
  for (int step = 0; step < 20000; ++step) {
    if (random() % 2 == 0 || blocks.empty()) {
      const size_t bytes = 1 + random() % 500;
      const size_t alignment = size_t{1} << random() % 8;
      const auto offset = free.Take(bytes, alignment);
      if (!offset) {
        ++refusals;
        continue;
      }
      ASSERT_EQ(*offset % alignment, 0u);
      ASSERT_LE(*offset + bytes, kBytes);
      for (size_t i = 0; i < bytes; ++i) {
        ASSERT_FALSE(taken[*offset + i]) << "byte " << *offset + i;
        taken[*offset + i] = true;
      }
      blocks[*offset] = bytes;
    } else {
      auto block = std::next(blocks.begin(), random() % blocks.size());
      free.Return(block->first, block->second);
      for (size_t i = 0; i < block->second; ++i) {
        taken[block->first + i] = false;
      }
      blocks.erase(block);
    }
  }
  EXPECT_GT(refusals, 0u) << "the range was never full: a weaker test";
  for (const auto& [offset, bytes] : blocks) free.Return(offset, bytes);
  EXPECT_EQ(free.blocks(), 1u);
  EXPECT_EQ(free.LargestFree(), kBytes);
}

}  // namespace
}  // namespace shardproof
