// The forward kernel in fibers against the bounded reference.
#include "attention/kernels/cuda/forward.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "attention/kernels/cuda/testing/tile_problem.h"
#include "attention/kernels/merge.h"

namespace shardproof::cuda {
namespace {

using testing::kTileHeadDims;
using testing::kTileTypes;
using testing::TileProblem;

using ForwardTest = testing::TileTest;

double At(const Tensor& t, int64_t i) {
  double x = 0;
  ToDouble(t.dtype(), FlashProblem::Element(t, i), 1, &x);
  return x;
}

TEST_F(ForwardTest, EveryTypeAndHeadDim) {
  for (const DType dtype : kTileTypes) {
    for (const int64_t d : kTileHeadDims) {
      for (const bool causal : {false, true}) {
        ExpectForward(ShapeOf(dtype, 70, 70, d), {.causal = causal},
                      {.count = 70}, {.count = 70});
      }
    }
  }
}

// Sizes beside those of tiles: 128 queries (64 where the head dimension is 128) and 64 keys.
TEST_F(ForwardTest, EdgesOfTiles) {
  constexpr int64_t kSizes[] = {1, 7, 63, 64, 65, 127, 128, 129};
  for (const int64_t n : kSizes) {
    ExpectForward(ShapeOf(DType::kBF16, n, n, 64), {.causal = true},
                  {.count = n}, {.count = n});
    ExpectForward(ShapeOf(DType::kBF16, 129, n, 64), {}, {.count = 129},
                  {.count = n});
    // The last queries of a longer sequence.
    ExpectForward(ShapeOf(DType::kF16, 7, n, 64), {.causal = true},
                  {.offset = n > 7 ? n - 7 : 0, .count = 7}, {.count = n});
    ExpectForward(ShapeOf(DType::kBF16, n, 65, 128), {.causal = true},
                  {.offset = 20, .count = n}, {.count = 65});
  }
}

TEST_F(ForwardTest, EveryKindOfHeads) {
  const Visibility causal = {.causal = true};
  FlashShape shape = ShapeOf(DType::kBF16, 21, 21, 64, 4);
  shape.sequences = 2;
  const auto expect = [&] {
    ExpectForward(shape, causal, {.count = 21}, {.count = 21});
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
}

// Parts of a sequence: contiguous, striped, of different strides, and some that see nothing at all.
TEST_F(ForwardTest, OffsetsAndStrides) {
  const TokenRun runs[] = {{0, 1, 40}, {40, 1, 70}, {2, 3, 30}, {1, 2, 45}};
  for (const TokenRun& queries : runs) {
    for (const TokenRun& keys : runs) {
      for (const int64_t window : {0, 11}) {
        ExpectForward(ShapeOf(DType::kBF16, queries.count, keys.count, 64),
                      {.causal = true, .window = window}, queries, keys);
      }
    }
  }
}

TEST_F(ForwardTest, Windows) {
  for (const int64_t window : {1, 40, 1000}) {
    for (const bool causal : {false, true}) {
      ExpectForward(ShapeOf(DType::kF16, 200, 200, 64), {causal, window},
                    {.count = 200}, {.count = 200});
    }
  }
}

TEST_F(ForwardTest, LargeAndSmallScores) {
  for (const DType dtype : kTileTypes) {
    for (const double scale : {0., 1e-3, 3., 40.}) {
      FlashShape shape = ShapeOf(dtype, 100, 100, 64);
      shape.scale = scale;
      SCOPED_TRACE(scale);
      ExpectForward(shape, {.causal = true}, {.count = 100}, {.count = 100});
    }
  }
}

// 0 and -inf, whether a row's tile is left out or other rows of it see keys.
TEST_F(ForwardTest, RowsThatSeeNothing) {
  for (const DType dtype : kTileTypes) {
    TileProblem problem(ShapeOf(dtype, 150, 40, 64), {.causal = true},
                        {.count = 150}, {.offset = 140, .count = 40});
    ASSERT_TRUE(problem.Forward(launch_, 3).ok());
    problem.ExpectForwardRight();
    const Tensor& o = problem.t["o"];
    const auto* const lse = problem.t["lse"].data<float>();
    for (int64_t i = 0; i < 150; ++i) {
      EXPECT_EQ(std::isinf(lse[i]), i < 140) << i;
      for (int64_t e = 0; i < 140 && e < 64; ++e) {
        ASSERT_EQ(At(o, i * o.shape()[1] + e), 0);
      }
    }
  }
  TileProblem none(ShapeOf(DType::kBF16, 5, 0, 64), {}, {.count = 5}, {});
  ASSERT_TRUE(none.Forward(launch_, 3).ok());
  for (int64_t i = 0; i < 5; ++i) {
    EXPECT_EQ(none.t["lse"].data<float>()[i],
              -std::numeric_limits<float>::infinity());
    EXPECT_EQ(At(none.t["o"], i * none.t["o"].shape()[1]), 0);
  }
}

// Partial results of two blocks of keys, of which the second is not seen by all, made one.
TEST_F(ForwardTest, PartialResultsMerge) {
  const FlashShape shape = ShapeOf(DType::kBF16, 90, 130, 64, 2);
  const Visibility causal = {.causal = true};
  const TokenRun queries = {.offset = 50, .count = 90};
  const TokenRun halves[] = {{.count = 70}, {.offset = 70, .count = 60}};
  TileProblem whole(shape, causal, queries, {.count = 130}, DType::kF32);
  std::vector<TileProblem> parts;
  for (const TokenRun& half : halves) {
    TileProblem& part =
        parts.emplace_back(shape, causal, queries, half, DType::kF32);
    for (const char* name : {"k", "v"}) {
      const Tensor& all = whole.t[name];
      const int64_t row = all.shape()[1] * SizeOf(shape.dtype);
      part.t["q"] = Random(shape.dtype, whole.t["q"].shape(), "q", 1.8);
      std::memcpy(part.t[name].raw(), all.bytes().data() + half.offset * row,
                  static_cast<size_t>(half.count * row));
    }
    ASSERT_TRUE(part.Forward(launch_, 17).ok());
  }
  const int64_t stride = parts[0].t["o"].shape()[1];
  ASSERT_TRUE(
      MergeAttention(Stream::Inline(), {.queries = 90,
                                        .heads = 2,
                                        .head_dim = 64,
                                        .o = {parts[0].t["o"].raw(), stride},
                                        .lse = {parts[0].t["lse"].raw()},
                                        .o_b = {parts[1].t["o"].raw(), stride},
                                        .lse_b = {parts[1].t["lse"].raw()}})
          .ok());
  const FlashResult want = whole.TileExpected(1, false);
  parts[0].ExpectClose("o", want.o);
  parts[0].ExpectClose("lse", want.lse);
}

// Column j of O is the probability of key j: 0 beyond the query.
TEST_F(ForwardTest, OneHotValuesShowProbabilities) {
  constexpr int64_t kTokens = 64;
  for (const DType dtype : kTileTypes) {
    TileProblem problem(ShapeOf(dtype, kTokens, kTokens, kTokens),
                        {.causal = true}, {.count = kTokens},
                        {.count = kTokens});
    Tensor& v = problem.t["v"];
    Visit(dtype, [&]<typename T>(TypeTag<T>) {
      for (int64_t i = 0; i < kTokens * kTokens; ++i) {
        v.data<T>()[i] = static_cast<T>(i % (kTokens + 1) == 0 ? 1.0F : 0.0F);
      }
    });
    ASSERT_TRUE(problem.Forward(launch_, 5).ok());
    const Tensor& o = problem.t["o"];
    for (int64_t i = 0; i < kTokens; ++i) {
      for (int64_t j = 0; j < kTokens; ++j) {
        ASSERT_EQ(At(o, i * o.shape()[1] + j) > 0, j <= i) << i << " " << j;
      }
    }
  }
}

// Equal scores: O is the mean of V and lse = score + ln keys, with numbers of keys that are powers of two.
TEST_F(ForwardTest, EqualKeysGiveTheMean) {
  for (const DType dtype : kTileTypes) {
    for (const int64_t keys : {1, 2, 64, 256}) {
      FlashShape shape = ShapeOf(dtype, 3, keys, 64);
      shape.scale = 0.25;
      TileProblem problem(shape, {}, {.count = 3}, {.count = keys});
      Visit(dtype, [&]<typename T>(TypeTag<T>) {
        for (int64_t i = 0; i < 3 * 64; ++i) {
          problem.t["q"].data<T>()[i] = static_cast<T>(0.5F);
        }
        for (int64_t i = 0; i < keys * 64; ++i) {
          problem.t["k"].data<T>()[i] = static_cast<T>(0.25F);
          problem.t["v"].data<T>()[i] =
              static_cast<T>(i % 2 == 0        ? 3.0F
                             : i / 64 % 2 == 0 ? 4.0F
                                               : -2.0F);
        }
      });
      ASSERT_TRUE(problem.Forward(launch_, 5).ok());
      const double lse = 0.25 * 64 * 0.125 + std::log(keys);
      for (int64_t i = 0; i < 3; ++i) {
        const int64_t row = i * problem.t["o"].shape()[1];
        EXPECT_EQ(At(problem.t["o"], row), 3);
        EXPECT_EQ(At(problem.t["o"], row + 1), keys > 1 ? 1 : 4);
        EXPECT_LE(std::abs(At(problem.t["lse"], i) - lse),
                  4 * UnitRoundoff(DType::kF32) * (lse + 1));
      }
    }
  }
}

TEST_F(ForwardTest, NanShows) {
  for (const DType dtype : kTileTypes) {
    TileProblem problem(ShapeOf(dtype, 40, 40, 64), {.causal = true},
                        {.count = 40}, {.count = 40});
    Poison(dtype, problem.t["k"].bytes().data() + 20 * 64 * SizeOf(dtype), 1);
    ASSERT_TRUE(problem.Forward(launch_, 9).ok());
    for (int64_t i = 0; i < 40; ++i) {
      EXPECT_EQ(std::isnan(At(problem.t["lse"], i)), i >= 20) << i;
      EXPECT_EQ(std::isnan(At(problem.t["o"], i * problem.t["o"].shape()[1])),
                i >= 20);
    }
  }
}

TEST_F(ForwardTest, SameBitsInEverySchedule) {
  for (const int64_t d : kTileHeadDims) {
    FlashShape shape = ShapeOf(DType::kBF16, 140, 140, d, 2);
    TileProblem first(shape, {.causal = true}, {.count = 140}, {.count = 140});
    ASSERT_TRUE(first.Forward(launch_, 100).ok());
    for (uint64_t seed = 101; seed < 107; ++seed) {
      TileProblem again(shape, {.causal = true}, {.count = 140},
                        {.count = 140});
      ASSERT_TRUE(again.Forward(launch_, seed).ok());
      EXPECT_TRUE(SameBits(first.t["o"], again.t["o"])) << seed;
      EXPECT_TRUE(SameBits(first.t["lse"], again.t["lse"])) << seed;
    }
  }
}

}  // namespace
}  // namespace shardproof::cuda
