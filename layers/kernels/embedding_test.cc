// Lookups and gradients against plain loops in double, on integers, so that
// sums are exact; on every instruction set that this machine has.
#include "layers/kernels/embedding.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <span>
#include <string>
#include <vector>

#include "collectives/kernels/streaming.h"
#include "layers/kernels/kernel_testing.h"

namespace shardproof {
namespace {

using Ids = std::vector<int64_t>;

constexpr DType kTypes[] = {DType::kF32, DType::kF64, DType::kBF16,
                            DType::kF16};
// Below, at and beyond one vector and four of them.
constexpr int64_t kWidths[] = {0, 1, 7, 64, 131};

struct Scratch {
  explicit Scratch(const EmbeddingShape& shape)
      : order(static_cast<size_t>(shape.tokens), -1),
        starts(static_cast<size_t>(shape.rows) + 1, -1) {}
  EmbeddingScratch view() { return {order, starts}; }
  Ids order, starts;
};

class EmbeddingTest : public testing::TestWithParam<int64_t> {
 protected:
  // Rows 10 to 15 of a larger table; ids on both sides, repeated ones, and one
  // that is missing.
  const Ids ids_ = {12, 9, 10, 12, 16, 15, 12, 0, 14, 15, 13};
  static constexpr int64_t kBegin = 10, kRows = 6;

  EmbeddingShape ShapeOf(DType dtype, int64_t hidden) const {
    return {.dtype = dtype,
            .tokens = static_cast<int64_t>(ids_.size()),
            .hidden = hidden,
            .begin = kBegin,
            .rows = kRows};
  }
  template <class Body>
  void ForAll(Body body) {
    const OnlyTarget only(GetParam());
    for (const DType dtype : kTypes) {
      for (const int64_t hidden : kWidths) {
        SCOPED_TRACE(fmt::format("rows of {} {}", hidden, Name(dtype)));
        body(ShapeOf(dtype, hidden));
      }
    }
  }
};

TEST_P(EmbeddingTest, LooksUpOwnRowsAndLeavesZeros) {
  ForAll([&](const EmbeddingShape& shape) {
    const Tensor table =
        Filled(Uniform(shape.dtype), {shape.rows, shape.hidden}, "table");
    Tensor y = Filled(Uniform(shape.dtype), {shape.tokens, shape.hidden}, "y");
    ASSERT_TRUE(EmbeddingLookup(Stream::Inline(), shape, ids_.data(),
                                table.raw(), y.raw())
                    .ok());
    const std::vector<double> got = Doubles(y), from = Doubles(table);
    for (size_t i = 0; i < ids_.size(); ++i) {
      const int64_t row = ids_[i] - kBegin;
      const bool own = row >= 0 && row < kRows;
      for (int64_t j = 0; j < shape.hidden; ++j) {
        const auto at = static_cast<size_t>(row * shape.hidden + j);
        ASSERT_EQ(got[i * static_cast<size_t>(shape.hidden) + j],
                  own ? from[at] : 0.0)
            << "token " << i << ", element " << j;
      }
    }
  });
}

TEST_P(EmbeddingTest, AddsGradientsOfRepeatedIds) {
  ForAll([&](const EmbeddingShape& shape) {
    for (const bool accumulate : {false, true}) {
      const auto exact = ExactSum(shape.dtype, 8);
      ASSERT_TRUE(exact.ok());
      const Tensor dy = Filled(*exact, {shape.tokens, shape.hidden}, "dy");
      Tensor dtable = Filled(*exact, {shape.rows, shape.hidden}, "dtable");
      std::vector<double> want = Doubles(dtable);
      if (!accumulate) want.assign(want.size(), 0.0);
      const std::vector<double> add = Doubles(dy);
      const auto hidden = static_cast<size_t>(shape.hidden);
      for (size_t i = 0; i < ids_.size(); ++i) {
        const int64_t row = ids_[i] - kBegin;
        if (row < 0 || row >= kRows) continue;
        for (size_t j = 0; j < hidden; ++j) {
          want[static_cast<size_t>(row) * hidden + j] += add[i * hidden + j];
        }
      }
      Scratch scratch(shape);
      ASSERT_TRUE(EmbeddingGradient(Stream::Inline(), shape, ids_.data(),
                                    dy.raw(), accumulate, scratch.view(),
                                    dtable.raw())
                      .ok());
      ASSERT_EQ(Doubles(dtable), want);
    }
  });
}

// 2^8 + 1 + 1 in bf16: rounded after each addition it would stay 2^8.
TEST_P(EmbeddingTest, RoundsOnce) {
  const OnlyTarget only(GetParam());
  const Ids ids = {0, 0, 0};
  const EmbeddingShape shape = {
      .dtype = DType::kBF16, .tokens = 3, .hidden = 1, .rows = 1};
  const std::vector<BFloat16> dy = {BFloat16(256.F), BFloat16(1.F),
                                    BFloat16(1.F)};
  BFloat16 sum(-1.F);
  Scratch scratch(shape);
  ASSERT_TRUE(EmbeddingGradient(Stream::Inline(), shape, ids.data(), dy.data(),
                                false, scratch.view(), &sum)
                  .ok());
  EXPECT_EQ(static_cast<float>(sum), 258.F);
}

// A gradient that no cache holds is stored around it: rows of no vector's length,
// and all of what was there before is gone.
TEST_P(EmbeddingTest, LeavesZerosInATableLargerThanTheCache) {
  const OnlyTarget only(GetParam());
  constexpr int64_t kHidden = 1001;
  const auto cache = static_cast<int64_t>(kernels::LastLevelCacheBytes());
  const int64_t rows = cache / (kHidden * 4) + 3;
  const Ids ids = {2, rows - 2, 5, 2};
  const EmbeddingShape shape = {
      .dtype = DType::kF32, .tokens = 4, .hidden = kHidden, .rows = rows};
  const std::vector<float> dy(4 * kHidden, 1.F);
  std::vector<float> dtable(static_cast<size_t>(rows * kHidden), -7.F);
  Scratch scratch(shape);
  ASSERT_TRUE(EmbeddingGradient(Stream::Inline(), shape, ids.data(), dy.data(),
                                false, scratch.view(), dtable.data())
                  .ok());
  for (int64_t k = 0; k < rows; ++k) {
    const auto want = static_cast<float>(std::ranges::count(ids, k));
    const auto row =
        std::span(dtable).subspan(static_cast<size_t>(k * kHidden), kHidden);
    ASSERT_EQ(std::ranges::count(row, want), kHidden) << "row " << k;
  }
}

INSTANTIATE_TEST_SUITE_P(All, EmbeddingTest, testing::ValuesIn(UsableTargets()),
                         [](const auto& info) {
                           return std::string(hwy::TargetName(info.param));
                         });

TEST(FirstIdOutsideTest, NamesThePosition) {
  EXPECT_EQ(FirstIdOutside(Ids{}, 0), -1);
  EXPECT_EQ(FirstIdOutside(Ids{0, 4, 3}, 5), -1);
  EXPECT_EQ(FirstIdOutside(Ids{0, 4, 5, 9}, 5), 2);
  EXPECT_EQ(FirstIdOutside(Ids{0, -1, 5}, 5), 1);
  EXPECT_EQ(FirstIdOutside(Ids{0}, 0), 0);
}

TEST(EmbeddingArgsTest, RefusesIntegersAndScratchOfAnotherSize) {
  int64_t id = 0;
  float x = 1, y = 1;
  EmbeddingShape shape = {
      .dtype = DType::kI32, .tokens = 1, .hidden = 1, .rows = 1};
  EXPECT_EQ(EmbeddingLookup(Stream::Inline(), shape, &id, &x, &y).code(),
            StatusCode::kUnsupported);
  shape.dtype = DType::kF32;
  Scratch scratch(shape);
  shape.rows = 2;
  EXPECT_EQ(EmbeddingGradient(Stream::Inline(), shape, &id, &x, false,
                              scratch.view(), &y)
                .code(),
            StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace shardproof
