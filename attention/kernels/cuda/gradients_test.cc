// Delta and the gradients in fibers against the bounded reference.
#include "attention/kernels/cuda/gradients.h"

#include <gtest/gtest.h>

#include <cmath>
#include <type_traits>
#include <vector>

#include "attention/kernels/cuda/testing/tile_problem.h"

namespace shardproof::cuda {
namespace {

using testing::kTileHeadDims;
using testing::kTileTypes;
using testing::TileProblem;

using GradientsTest = testing::TileTest;

// The tokens from number `token` on, of elements of so many bytes.
template <class Void>
FlashTokens<Void> From(FlashTokens<Void> tokens, int64_t token, int bytes) {
  using Byte = std::conditional_t<std::is_const_v<Void>, const char, char>;
  tokens.data = static_cast<Byte*>(tokens.data) + token * tokens.stride * bytes;
  return tokens;
}

TEST_F(GradientsTest, EveryTypeAndHeadDim) {
  for (const DType dtype : kTileTypes) {
    for (const int64_t d : kTileHeadDims) {
      for (const bool causal : {false, true}) {
        ExpectAll(ShapeOf(dtype, 70, 70, d), {.causal = causal}, {.count = 70},
                  {.count = 70});
      }
    }
  }
}

// Sizes beside those of tiles: 128 rows (64 keys where the head dimension is 128) and 32 columns.
TEST_F(GradientsTest, EdgesOfTiles) {
  constexpr int64_t kSizes[] = {1, 7, 31, 32, 33, 63, 64, 65, 127, 128, 129};
  for (const int64_t n : kSizes) {
    ExpectAll(ShapeOf(DType::kBF16, n, n, 64), {.causal = true}, {.count = n},
              {.count = n});
    ExpectAll(ShapeOf(DType::kBF16, 33, n, 128), {}, {.count = 33},
              {.count = n});
    // The last queries of a longer sequence.
    ExpectAll(ShapeOf(DType::kF16, 7, n, 64), {.causal = true},
              {.offset = n > 7 ? n - 7 : 0, .count = 7}, {.count = n});
  }
}

TEST_F(GradientsTest, EveryKindOfHeads) {
  const Visibility causal = {.causal = true};
  FlashShape shape = ShapeOf(DType::kBF16, 37, 37, 64, 4);
  shape.sequences = 2;
  const auto expect = [&] {
    ExpectAll(shape, causal, {.count = 37}, {.count = 37});
  };
  expect();
  shape.kv_heads = 1;
  shape.heads_per_kv = 4;
  expect();
  shape.heads_per_kv = 9;  // A part of a group.
  shape.first_in_group = 3;
  expect();
  shape.kv_heads = 3;  // The end of one group, another, the start of a third.
  shape.heads_per_kv = 2;
  shape.first_in_group = 1;
  expect();
  shape.kv_heads = 4;  // A KV head that nobody has.
  expect();
}

TEST_F(GradientsTest, OffsetsStridesAndWindows) {
  const TokenRun runs[] = {{0, 1, 40}, {40, 1, 70}, {2, 3, 30}, {1, 2, 45}};
  for (const TokenRun& queries : runs) {
    for (const TokenRun& keys : runs) {
      for (const int64_t window : {0, 11}) {
        ExpectAll(ShapeOf(DType::kBF16, queries.count, keys.count, 64),
                  {.causal = true, .window = window}, queries, keys);
      }
    }
  }
  ExpectAll(ShapeOf(DType::kF16, 150, 150, 64), {.window = 20}, {.count = 150},
            {.count = 150});
}

TEST_F(GradientsTest, LargeAndSmallScores) {
  for (const DType dtype : kTileTypes) {
    for (const double scale : {0., 1e-3, 3., 40.}) {
      FlashShape shape = ShapeOf(dtype, 50, 50, 64);
      shape.scale = scale;
      SCOPED_TRACE(scale);
      ExpectAll(shape, {.causal = true}, {.count = 50}, {.count = 50});
    }
  }
}

// Nothing is seen: no gradient, and none where it is added.
TEST_F(GradientsTest, RowsThatSeeNothing) {
  for (const DType dtype : kTileTypes) {
    ExpectAll(ShapeOf(dtype, 40, 40, 64), {.causal = true}, {.count = 40},
              {.offset = 40, .count = 40});
    ExpectAll(ShapeOf(dtype, 40, 40, 128), {.causal = true}, {.count = 40},
              {.offset = 33, .count = 40});
  }
}

// As in a ring: the final lse and delta of all keys, block by block; dQ is added.
TEST_F(GradientsTest, BlocksWithTheLseOfAllKeys) {
  const FlashShape shape = ShapeOf(DType::kBF16, 90, 130, 64, 2);
  const Visibility causal = {.causal = true};
  const TokenRun queries = {.offset = 50, .count = 90};
  TileProblem whole(shape, causal, queries, {.count = 130});
  ASSERT_TRUE(whole.Forward(launch_, 1).ok());
  ASSERT_TRUE(whole.Delta(launch_, 2).ok());
  bool overwrite = true;
  for (const TokenRun& half :
       {TokenRun{.count = 70}, TokenRun{.offset = 70, .count = 60}}) {
    FlashBackwardArgs args = whole.TileBackwardArgs(overwrite);
    args.work.sight.keys = testing::SpanOf(half);
    args.k = From(args.k, half.offset, 2);
    args.v = From(args.v, half.offset, 2);
    args.dk = From(args.dk, half.offset, 4);
    args.dv = From(args.dv, half.offset, 4);
    using Queries = QueryGradientTiling<64>;
    using Keys = KeyGradientTiling<64>;
    ASSERT_TRUE(
        launch_({FlashBlocks(TilesOf(90, Queries::kRows), 2, 1),
                 Queries::kThreads, QueryGradientSharedBytes<Queries>()},
                3,
                [&](auto& context) {
                  FlashQueryGradients<BFloat16, Queries>(context, args);
                })
            .ok());
    args.overwrite = true;
    ASSERT_TRUE(
        launch_({FlashBlocks(TilesOf(static_cast<int>(half.count), Keys::kRows),
                             2, 1),
                 Keys::kThreads, KeyGradientSharedBytes<Keys>()},
                4,
                [&](auto& context) {
                  FlashKeyGradients<BFloat16, Keys>(context, args);
                })
            .ok());
    overwrite = false;
  }
  whole.ExpectAllRight(1);
}

// Delta of an O of f32.
TEST_F(GradientsTest, WideO) {
  TileProblem problem(ShapeOf(DType::kBF16, 70, 70, 128), {.causal = true},
                      {.count = 70}, {.count = 70}, DType::kF32);
  ASSERT_TRUE(problem.Run(launch_, 8).ok());
  problem.ExpectAllRight();
}

TEST_F(GradientsTest, AddsOrOverwrites) {
  FlashShape shape = ShapeOf(DType::kF16, 33, 33, 64, 4);
  shape.kv_heads = 2;
  shape.heads_per_kv = 2;
  TileProblem problem(shape, {.causal = true}, {.count = 33}, {.count = 33});
  ASSERT_TRUE(problem.Run(launch_, 1).ok());
  std::vector<std::vector<double>> once;
  for (const char* name : {"dq", "dk", "dv"}) {
    once.push_back(Doubles(problem.t[name]));
  }
  ASSERT_TRUE(problem.Backward(launch_, 2, /*overwrite=*/false).ok());
  size_t n = 0;
  for (const char* name : {"dq", "dk", "dv"}) {
    const std::vector<double> twice = Doubles(problem.t[name]);
    for (size_t i = 0; i < twice.size(); ++i) {
      if (std::isnan(once[n][i])) continue;  // Room between rows.
      ASSERT_EQ(twice[i], 2 * once[n][i]) << name;
    }
    ++n;
  }
}

TEST_F(GradientsTest, SameBitsInEverySchedule) {
  for (const int64_t d : kTileHeadDims) {
    const FlashShape shape = ShapeOf(DType::kBF16, 140, 140, d);
    TileProblem first(shape, {.causal = true}, {.count = 140}, {.count = 140});
    ASSERT_TRUE(first.Run(launch_, 100).ok());
    for (uint64_t seed = 101; seed < 105; ++seed) {
      TileProblem again(shape, {.causal = true}, {.count = 140},
                        {.count = 140});
      ASSERT_TRUE(again.Run(launch_, seed).ok());
      for (const char* name : {"dq", "dk", "dv", "delta"}) {
        EXPECT_TRUE(SameBits(first.t[name], again.t[name])) << name << seed;
      }
    }
  }
}

}  // namespace
}  // namespace shardproof::cuda
