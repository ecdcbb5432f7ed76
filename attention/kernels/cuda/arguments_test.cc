// How work is cut, and what is refused.
#include "attention/kernels/cuda/arguments.h"

#include <gtest/gtest.h>

#include <set>
#include <tuple>

namespace shardproof::cuda {
namespace {

TEST(ArgumentsTest, EveryPartHasABlock) {
  constexpr int kTiles = 4, kHeads = 6, kSequences = 2;
  const auto blocks = static_cast<int>(FlashBlocks(kTiles, kHeads, kSequences));
  for (const TileOrder order :
       {TileOrder::kFirstTileFirst, TileOrder::kLastTileFirst}) {
    std::set<std::tuple<int, int, int>> parts;
    for (int block = 0; block < blocks; ++block) {
      const FlashPart part = FlashPartOf(block, kTiles, kHeads, order);
      EXPECT_TRUE(part.tile >= 0 && part.tile < kTiles);
      EXPECT_TRUE(part.head >= 0 && part.head < kHeads);
      EXPECT_TRUE(part.sequence >= 0 && part.sequence < kSequences);
      parts.emplace(part.tile, part.head, part.sequence);
    }
    EXPECT_EQ(parts.size(), static_cast<size_t>(blocks));
    EXPECT_EQ(FlashPartOf(0, kTiles, kHeads, order).tile,
              order == TileOrder::kFirstTileFirst ? 0 : kTiles - 1);
  }
}

// The heads of a KV head are those that have it.
TEST(ArgumentsTest, HeadsOfAGroup) {
  for (int per_kv = 1; per_kv <= 4; ++per_kv) {
    for (int first = 0; first < per_kv; ++first) {
      const FlashWork work = {.heads = 7,
                              .kv_heads = 9,
                              .heads_per_kv = per_kv,
                              .first_in_group = first};
      for (int kv_head = 0; kv_head < work.kv_heads; ++kv_head) {
        for (int head = 0; head < work.heads; ++head) {
          EXPECT_EQ(head >= work.FirstHeadOf(kv_head) &&
                        head < work.LastHeadOf(kv_head),
                    work.KvHeadOf(head) == kv_head);
        }
      }
    }
  }
}

TEST(ArgumentsTest, ScaleIsNeverNothing) {
  FlashWork work;
  SetScale(work, 0);
  EXPECT_EQ(work.scale, 0);
  EXPECT_GT(work.exponent_scale, 0);
  SetScale(work, 0.5);
  EXPECT_EQ(work.exponent_scale, static_cast<float>(0.5 * kLgE));
}

TEST(ArgumentsTest, SharedMemory) {
  EXPECT_EQ(ForwardSharedBytes<ForwardTiling<64>>(), 32u << 10);
  EXPECT_EQ(ForwardSharedBytes<ForwardTiling<128>>(), 48u << 10);
  EXPECT_EQ(QueryGradientSharedBytes<QueryGradientTiling<64>>(), 48u << 10);
  EXPECT_EQ(QueryGradientSharedBytes<QueryGradientTiling<128>>(), 96u << 10);
  EXPECT_EQ(KeyGradientSharedBytes<KeyGradientTiling<64>>(), (48u << 10) + 512);
  EXPECT_EQ(KeyGradientSharedBytes<KeyGradientTiling<128>>(),
            (64u << 10) + 512);
}

TEST(ArgumentsTest, Refusals) {
  FlashWork work = {.heads = 4, .kv_heads = 2, .heads_per_kv = 2};
  EXPECT_EQ(WhyNotFlash(work), nullptr);
  work.heads_per_kv = 1;
  EXPECT_NE(WhyNotFlash(work), nullptr);
  work.heads_per_kv = 2;
  work.first_in_group = 2;
  EXPECT_NE(WhyNotFlash(work), nullptr);
  work.first_in_group = 0;
  SetScale(work, -1);
  EXPECT_NE(WhyNotFlash(work), nullptr);
  SetScale(work, 1);
  work.sequences = -1;
  EXPECT_NE(WhyNotFlash(work), nullptr);
  work.sequences = 1;
  work.sight.window = -1;
  EXPECT_NE(WhyNotFlash(work), nullptr);

  alignas(16) std::byte memory[32];
  EXPECT_EQ(WhyNotFlash(FlashOut{memory, 64, 128}), nullptr);
  EXPECT_NE(WhyNotFlash(FlashOut{memory + 8, 64, 128}), nullptr);
  EXPECT_NE(WhyNotFlash(FlashOut{memory, 60, 128}), nullptr);
  EXPECT_NE(WhyNotFlash(FlashIn{memory, 64, 124}), nullptr);
}

}  // namespace
}  // namespace shardproof::cuda
