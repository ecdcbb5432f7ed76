// Flash attention against the bounded reference.
#include "attention/kernels/flash.h"

#include <gtest/gtest.h>

#include "attention/kernels/flash_testing.h"

namespace shardproof {
namespace {

class FlashAttentionTest : public testing::Test {
 protected:
  static void TearDownTestSuite() {
    for (const auto& [what, ratio] : FlashProblem::worst_ratio()) {
      std::printf("%s: worst e / bound %.3f\n", what.c_str(), ratio);
    }
  }
};

void ExpectWhole(const FlashShape& shape, const Visibility& v) {
  ExpectBlockRight(shape, v, {.count = shape.queries}, {.count = shape.keys});
}

TEST_F(FlashAttentionTest, EveryType) {
  for (const DType dtype : kFlashTypes) {
    for (const bool causal : {false, true}) {
      ExpectWhole(ShapeOf(dtype, 70, 70, 64), {.causal = causal});
    }
  }
}

TEST_F(FlashAttentionTest, EveryHeadDim) {
  for (const int64_t d : {1, 7, 16, 20, 64, 80, 96, 128, 192, 256}) {
    for (const DType dtype : kFlashTypes) {
      ExpectWhole(ShapeOf(dtype, 37, 37, d), {.causal = true});
    }
  }
}

// Sizes beside those of tiles: 128 and 256 queries, 256 and 512 keys.
TEST_F(FlashAttentionTest, EdgesOfTiles) {
  for (const auto& [queries, keys] : {std::pair<int64_t, int64_t>{1, 1},
                                      {1, 700},
                                      {300, 1},
                                      {128, 512},
                                      {129, 513},
                                      {257, 511},
                                      {256, 257}}) {
    for (const DType dtype : {DType::kF32, DType::kBF16}) {
      ExpectWhole(ShapeOf(dtype, queries, keys, 32), {});
      // The last queries of a longer sequence, and the first of one.
      ExpectBlockRight(
          ShapeOf(dtype, queries, keys, 32), {.causal = true},
          {.offset = keys > queries ? keys - queries : 0, .count = queries},
          {.count = keys});
    }
  }
}

TEST_F(FlashAttentionTest, EveryKindOfHeads) {
  for (const DType dtype : kFlashTypes) {
    FlashShape shape = ShapeOf(dtype, 21, 21, 20, 4);
    shape.sequences = 2;
    const Visibility causal = {.causal = true};
    ExpectWhole(shape, causal);
    shape.kv_heads = 1;
    shape.heads_per_kv = 4;
    ExpectWhole(shape, causal);
    shape.heads_per_kv = 9;  // A part of a group.
    shape.first_in_group = 3;
    ExpectWhole(shape, causal);
    shape.kv_heads = 3;  // The end of one group, another, the start of a third.
    shape.heads_per_kv = 2;
    shape.first_in_group = 1;
    ExpectWhole(shape, causal);
  }
}

TEST_F(FlashAttentionTest, Windows) {
  for (const int64_t window : {1, 5, 40, 1000}) {
    for (const bool causal : {false, true}) {
      ExpectWhole(ShapeOf(DType::kBF16, 300, 300, 32), {causal, window});
      ExpectWhole(ShapeOf(DType::kF32, 70, 70, 32), {causal, window});
    }
  }
}

TEST_F(FlashAttentionTest, Documents) {
  for (const bool causal : {false, true}) {
    for (const int64_t window : {0, 9}) {
      ExpectWhole(ShapeOf(DType::kBF16, 300, 300, 32),
                  {causal, window, {0, 1, 130, 256, 300}});
      ExpectWhole(ShapeOf(DType::kF64, 40, 40, 32),
                  {causal, window, {0, 13, 14, 40}});
      // Padding sees nothing, and nothing sees it; with something of another
      // tile and head in its place before.
      ExpectWhole(ShapeOf(DType::kF32, 600, 600, 32, 2),
                  {causal, window, {0, 13, 571}});
    }
  }
}

// Parts of a sequence: contiguous, striped, of different strides, and some that
// see nothing at all.
TEST_F(FlashAttentionTest, OffsetsAndStrides) {
  const TokenRun runs[] = {{0, 1, 40}, {40, 1, 40}, {0, 3, 30},
                           {2, 3, 30}, {1, 2, 45},  {80, 1, 7}};
  for (const TokenRun& queries : runs) {
    for (const TokenRun& keys : runs) {
      for (const Visibility& v :
           {Visibility{.causal = true},
            Visibility{.causal = true, .window = 11},
            Visibility{.causal = true, .cu_seqlens = {0, 33, 90}}}) {
        // Created for more than are there.
        ExpectBlockRight(ShapeOf(DType::kF32, 60, 77, 16), v, queries, keys);
      }
      ExpectBlockRight(ShapeOf(DType::kBF16, 60, 77, 16), {.causal = true},
                       queries, keys);
    }
  }
}

TEST_F(FlashAttentionTest, LargeAndSmallScores) {
  for (const DType dtype : kFlashTypes) {
    for (const double scale : {0., 1e-3, 3., 40.}) {
      FlashShape shape = ShapeOf(dtype, 50, 50, 32);
      shape.scale = scale;
      const auto flash = FlashAttention::Create(shape);
      FlashProblem problem(shape, {.causal = true}, {.count = 50},
                           {.count = 50});
      ASSERT_TRUE(problem.Run(**flash).ok());
      SCOPED_TRACE(fmt::format("{}, scale {}", Name(dtype), scale));
      problem.ExpectRight();
    }
  }
}

// Fewer tokens than before leave nothing of the earlier ones.
TEST_F(FlashAttentionTest, ShrinkingBlocks) {
  const FlashShape shape = ShapeOf(DType::kBF16, 300, 600, 32, 2);
  const auto flash = FlashAttention::Create(shape);
  const Visibility all;
  for (const int64_t tokens : {300, 17, 299, 1, 0}) {
    FlashProblem problem(shape, all, {.count = tokens}, {.count = 2 * tokens});
    ASSERT_TRUE(problem.Run(**flash).ok());
    problem.ExpectRight();
  }
}

}  // namespace
}  // namespace shardproof
