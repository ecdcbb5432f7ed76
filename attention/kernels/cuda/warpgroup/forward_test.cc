// The forward kernel of warpgroups in fibers against the bounded reference.
#include "attention/kernels/cuda/warpgroup/forward.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstdio>

#include "attention/kernels/cuda/warpgroup/testing/warpgroup_problem.h"

namespace shardproof::cuda {
namespace {

using testing::Describe;
using testing::kTileHeadDims;
using testing::kTileTypes;
using testing::WarpgroupLauncher;
using testing::WarpgroupProblem;

class WarpgroupForwardTest : public ::testing::Test {
 protected:
  // What a program prints in the end: how much of the bounds was used.
  static void TearDownTestSuite() {
    for (const auto& [what, ratio] : FlashProblem::worst_ratio()) {
      std::printf("%s: worst e / bound %.3f\n", what.c_str(), ratio);
    }
  }

  void Expect(const FlashShape& shape, const Visibility& v,
              const TokenRun& queries, const TokenRun& keys) {
    SCOPED_TRACE(Describe(shape, v, queries, keys));
    WarpgroupProblem problem(shape, v, queries, keys);
    const Status status = problem.Forward(launch_, ++seed_);
    ASSERT_TRUE(status.ok()) << status.ToString();
    problem.ExpectForwardRight();
  }

  WarpgroupLauncher launch_;
  uint64_t seed_ = 0;
};

TEST_F(WarpgroupForwardTest, EveryTypeAndHeadDim) {
  for (const DType dtype : kTileTypes) {
    for (const int64_t d : kTileHeadDims) {
      for (const bool causal : {false, true}) {
        Expect(ShapeOf(dtype, 150, 150, d), {.causal = causal}, {.count = 150},
               {.count = 150});
      }
    }
  }
}

// Sizes beside those of tiles, 128 queries and 128 keys, and of a consumer, 64 queries.
TEST_F(WarpgroupForwardTest, EdgesOfTiles) {
  for (const int64_t n : {1, 63, 64, 65, 127, 128, 129, 257}) {
    Expect(ShapeOf(DType::kBF16, n, n, 64), {.causal = true}, {.count = n},
           {.count = n});
    Expect(ShapeOf(DType::kF16, 70, n, 128), {}, {.count = 70}, {.count = n});
    // The last queries of a longer sequence.
    Expect(ShapeOf(DType::kF16, 7, n, 64), {.causal = true},
           {.offset = n > 7 ? n - 7 : 0, .count = 7}, {.count = n});
  }
}

// Every number of rounds of a stage: 1 to 3 of two stages, the last one whole or not.
TEST_F(WarpgroupForwardTest, NumbersOfTiles) {
  for (const int64_t keys : {128, 256, 384, 512, 640, 700}) {
    Expect(ShapeOf(DType::kBF16, 20, keys, 64), {}, {.count = 20},
           {.count = keys});
  }
  Expect(ShapeOf(DType::kBF16, 130, 600, 128), {.causal = true},
         {.offset = 470, .count = 130}, {.count = 600});
}

TEST_F(WarpgroupForwardTest, EveryKindOfHeads) {
  FlashShape shape = ShapeOf(DType::kBF16, 21, 150, 64, 4);
  shape.sequences = 2;
  const auto expect = [&] {
    Expect(shape, {.causal = true}, {.offset = 129, .count = 21},
           {.count = 150});
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

TEST_F(WarpgroupForwardTest, OffsetsAndStrides) {
  const TokenRun runs[] = {{0, 1, 40}, {40, 1, 170}, {2, 3, 130}};
  for (const TokenRun& queries : runs) {
    for (const TokenRun& keys : runs) {
      for (const int64_t window : {0, 11}) {
        Expect(ShapeOf(DType::kBF16, queries.count, keys.count, 64),
               {.causal = true, .window = window}, queries, keys);
      }
    }
  }
}

TEST_F(WarpgroupForwardTest, Windows) {
  for (const int64_t window : {1, 140, 1000}) {
    for (const bool causal : {false, true}) {
      Expect(ShapeOf(DType::kF16, 400, 400, 64), {causal, window},
             {.count = 400}, {.count = 400});
    }
  }
  Expect(ShapeOf(DType::kBF16, 300, 300, 128), {true, 100}, {.count = 300},
         {.count = 300});
}

TEST_F(WarpgroupForwardTest, LargeAndSmallScores) {
  for (const DType dtype : kTileTypes) {
    for (const double scale : {0., 1e-3, 3., 40.}) {
      FlashShape shape = ShapeOf(dtype, 30, 300, 64);
      shape.scale = scale;
      SCOPED_TRACE(scale);
      Expect(shape, {.causal = true}, {.offset = 270, .count = 30},
             {.count = 300});
    }
  }
}

// 0 and -inf, whether a row's tile is left out or other rows of it see keys.
TEST_F(WarpgroupForwardTest, RowsThatSeeNothing) {
  for (const DType o_type : {DType::kBF16, DType::kF32}) {
    WarpgroupProblem problem(ShapeOf(DType::kBF16, 300, 40, 64),
                             {.causal = true}, {.count = 300},
                             {.offset = 140, .count = 40}, o_type);
    const Status status = problem.Forward(launch_, 3);
    ASSERT_TRUE(status.ok()) << status.ToString();
    problem.ExpectForwardRight();
    const auto* const lse = problem.t["lse"].data<float>();
    for (int64_t i = 0; i < 300; ++i) {
      EXPECT_EQ(std::isinf(lse[i]), i < 140) << i;
    }
  }
}

TEST_F(WarpgroupForwardTest, NothingToSeeIsForMma) {
  WarpgroupProblem none(ShapeOf(DType::kBF16, 5, 0, 64), {}, {.count = 5}, {});
  EXPECT_EQ(none.Forward(launch_, 3).code(), StatusCode::kUnsupported);
}

TEST_F(WarpgroupForwardTest, SameBitsInEverySchedule) {
  for (const int64_t d : kTileHeadDims) {
    const FlashShape shape = ShapeOf(DType::kBF16, 140, 400, d);
    const auto run = [&](uint64_t seed) {
      WarpgroupProblem problem(shape, {.causal = true},
                               {.offset = 260, .count = 140}, {.count = 400});
      const Status status = problem.Forward(launch_, seed);
      EXPECT_TRUE(status.ok()) << seed << ": " << status.ToString();
      return problem;
    };
    WarpgroupProblem first = run(100);
    for (uint64_t seed = 101; seed < 125; ++seed) {
      WarpgroupProblem again = run(seed);
      EXPECT_TRUE(SameBits(first.t["o"], again.t["o"])) << seed;
      EXPECT_TRUE(SameBits(first.t["lse"], again.t["lse"])) << seed;
    }
  }
}

}  // namespace
}  // namespace shardproof::cuda
