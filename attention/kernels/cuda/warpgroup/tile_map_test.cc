// Which tensors TMA takes, and which calls of attention are warpgroups'.
#include "attention/kernels/cuda/warpgroup/tile_map.h"

#include <gtest/gtest.h>

#include <cstdint>

#include "attention/kernels/cuda/warpgroup/tiling.h"

namespace shardproof::cuda {
namespace {

alignas(16) std::byte memory[64];

FlashForwardArgs Args(int queries, int keys, int sequences = 2) {
  FlashForwardArgs args = {};
  args.work = {
      .sequences = sequences, .heads = 4, .kv_heads = 2, .heads_per_kv = 2};
  args.work.sight.queries.count = queries;
  args.work.sight.keys.count = keys;
  args.q = {memory, 4 * 128 + 8, (4 * 128 + 8) * int64_t{queries}};
  args.k = args.v = {memory, 2 * 128, 2 * 128 * int64_t{keys}};
  return args;
}
const char* Why(const FlashForwardArgs& args, DType dtype = DType::kBF16,
                int head_dim = 128) {
  TileMapSpec specs[3];
  return WhyNotWarpgroups(args, dtype, head_dim, 128, 128, specs);
}

TEST(TileMapTest, DescribesTokens) {
  const FlashForwardArgs args = Args(300, 500);
  TileMapSpec specs[3];
  ASSERT_EQ(WhyNotWarpgroups(args, DType::kF16, 128, 128, 64, specs), nullptr);
  const TileMapSpec& q = specs[0];
  EXPECT_EQ(q.data, memory);
  EXPECT_EQ(q.dtype, DType::kF16);
  const int64_t sizes[] = {128, 4, 300, 2};
  const int64_t strides[] = {256, 520 * 2, 520 * 2 * 300};
  const int32_t boxes[] = {64, 1, 128, 1};
  for (int i = 0; i < kMapDimensions; ++i) {
    EXPECT_EQ(q.sizes[i], sizes[i]) << i;
    EXPECT_EQ(q.box[i], boxes[i]) << i;
  }
  for (int i = 0; i < 3; ++i) EXPECT_EQ(q.strides[i], strides[i]) << i;
  EXPECT_EQ(specs[1].sizes[1], 2);
  EXPECT_EQ(specs[1].sizes[2], 500);
  EXPECT_EQ(specs[2].box[2], 64);
  EXPECT_EQ(sizeof(TileMap), 128u);
  EXPECT_EQ(alignof(WarpgroupForwardArgs) % 128, 0u);
}

TEST(TileMapTest, TakesWhatFits) {
  EXPECT_EQ(Why(Args(1, 1)), nullptr);
  EXPECT_EQ(Why(Args(300, 500), DType::kF16, 64), nullptr);
  // Of one sequence it matters not where the next would be.
  FlashForwardArgs args = Args(300, 500, 1);
  args.q.sequence_stride = args.k.sequence_stride = 0;
  EXPECT_EQ(Why(args), nullptr);
}

TEST(TileMapTest, LeavesTheRestToMma) {
  EXPECT_NE(Why(Args(5, 0)), nullptr);  // No keys: a map of nothing.
  EXPECT_NE(Why(Args(0, 5)), nullptr);
  EXPECT_NE(Why(Args(5, 5), DType::kF32), nullptr);
  EXPECT_NE(Why(Args(5, 5), DType::kBF16, 96), nullptr);
  FlashForwardArgs args = Args(300, 500);
  args.k.data = memory + 8;
  EXPECT_NE(Why(args), nullptr);
  args = Args(300, 500);
  args.v.stride += 4;
  EXPECT_NE(Why(args), nullptr);
  args = Args(300, 500);
  args.k.sequence_stride = int64_t{1} << 39;
  EXPECT_NE(Why(args), nullptr);
  // Sequences side by side in a token's row: nearer than a map may have them.
  args = Args(3000, 500);
  args.q.sequence_stride = 512;
  args.q.stride = 1024;
  EXPECT_NE(Why(args), nullptr);
}

}  // namespace
}  // namespace shardproof::cuda
