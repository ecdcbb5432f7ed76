// Layouts against their definition, and what they balance.
#include "attention/layout/layout.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <string>
#include <vector>

namespace shardproof {
namespace {

constexpr SequenceLayout kLayouts[] = {SequenceLayout::kContiguous,
                                       SequenceLayout::kStriped,
                                       SequenceLayout::kZigzag};
constexpr int64_t kRanks[] = {1, 2, 3, 4, 5, 8};
constexpr Visibility kCausal = {.causal = true};

// The rank of a token, by the header.
int64_t RankOf(const LayoutShape& s, int64_t token) {
  switch (s.layout) {
    case SequenceLayout::kContiguous: {
      int64_t end = 0;
      for (int64_t r = 0; r < s.ranks; ++r) {
        end += s.tokens / s.ranks + (r < s.tokens % s.ranks ? 1 : 0);
        if (token < end) return r;
      }
      return -1;
    }
    case SequenceLayout::kStriped:
      return token % s.ranks;
    case SequenceLayout::kZigzag: {
      const int64_t chunk = token / (s.tokens / (2 * s.ranks));
      return std::min(chunk, 2 * s.ranks - 1 - chunk);
    }
  }
  return -1;
}

std::vector<LayoutShape> Shapes() {
  std::vector<LayoutShape> shapes;
  for (const SequenceLayout layout : kLayouts) {
    for (const int64_t ranks : kRanks) {
      for (const int64_t tokens : {0, 1, 2, 7, 16, 48, 240}) {
        const LayoutShape shape = {layout, tokens, ranks};
        if (CheckLayout(shape).ok()) shapes.push_back(shape);
      }
    }
  }
  return shapes;
}

std::string Say(const LayoutShape& s) {
  return fmt::format("{}, {} tokens, {} ranks", Name(s.layout), s.tokens,
                     s.ranks);
}

TEST(Layout, EveryTokenHasItsRank) {
  for (const LayoutShape& shape : Shapes()) {
    SCOPED_TRACE(Say(shape));
    std::vector<int64_t> all;
    for (int64_t r = 0; r < shape.ranks; ++r) {
      const auto runs = RunsOf(shape, r);
      ASSERT_TRUE(runs.ok());
      const std::vector<int64_t> positions = Positions(*runs);
      EXPECT_EQ(static_cast<int64_t>(positions.size()), CountTokens(*runs));
      EXPECT_TRUE(std::is_sorted(positions.begin(), positions.end()));
      for (const int64_t p : positions) EXPECT_EQ(RankOf(shape, p), r) << p;
      all.insert(all.end(), positions.begin(), positions.end());
    }
    std::sort(all.begin(), all.end());
    ASSERT_EQ(static_cast<int64_t>(all.size()), shape.tokens);
    for (int64_t i = 0; i < shape.tokens; ++i) {
      ASSERT_EQ(all[static_cast<size_t>(i)], i);
    }
  }
}

// Row i holds i, i + 1/4, ..
Tensor Counted(int64_t rows, int64_t width) {
  Tensor t(DType::kF32, {rows, width});
  for (int64_t i = 0; i < rows * width; ++i) {
    const int64_t row = i / width;
    t.data<float>()[i] =
        static_cast<float>(row) + 0.25f * static_cast<float>(i % width);
  }
  return t;
}

TEST(Layout, ShardAndBackIsTheWhole) {
  for (const LayoutShape& shape : Shapes()) {
    SCOPED_TRACE(Say(shape));
    for (const int64_t width : {1, 3}) {
      const Tensor all = Counted(shape.tokens, width);
      Tensor back(DType::kF32, all.shape());
      std::fill_n(back.data<float>(), back.num_elements(), -1);
      for (int64_t r = 0; r < shape.ranks; ++r) {
        const std::vector<TokenRun> runs = *RunsOf(shape, r);
        const std::vector<int64_t> positions = Positions(runs);
        Tensor mine(DType::kF32, {CountTokens(runs), width});
        ASSERT_TRUE(ShardRows(runs, all.view(), mine.view()).ok());
        for (size_t i = 0; i < positions.size(); ++i) {
          ASSERT_EQ(mine.data<float>()[static_cast<int64_t>(i) * width],
                    static_cast<float>(positions[i]));
        }
        ASSERT_TRUE(UnshardRows(runs, mine.view(), back.view()).ok());
      }
      for (int64_t i = 0; i < all.num_elements(); ++i) {
        ASSERT_EQ(back.data<float>()[i], all.data<float>()[i]) << i;
      }
    }
  }
}

TEST(Layout, ZigzagGivesEveryRankTheSame) {
  for (const int64_t ranks : kRanks) {
    for (const int64_t chunk : {1, 2, 7, 16}) {
      const int64_t n = 2 * ranks * chunk;
      const LayoutShape shape = {SequenceLayout::kZigzag, n, ranks};
      const TokenRun keys = {.count = n};
      for (int64_t r = 0; r < ranks; ++r) {
        EXPECT_EQ(CountPairs(kCausal, *RunsOf(shape, r), {&keys, 1}),
                  2 * ranks * chunk * chunk + chunk);
      }
      EXPECT_EQ(*Balance(shape, kCausal), 1);
      EXPECT_EQ(*RingEfficiency(shape, kCausal), 1);
    }
  }
}

// Step 0 has c^2 / 2 pairs on every rank, every other one c^2 on some.
TEST(Layout, ContiguousCausalRingIsCapped) {
  for (const int64_t ranks : kRanks) {
    const int64_t chunk = 1000;
    const LayoutShape shape = {SequenceLayout::kContiguous, ranks * chunk,
                               ranks};
    const auto p = static_cast<double>(ranks);
    const auto c = static_cast<double>(chunk);
    const double waited = c * (c + 1) / 2 + (p - 1) * c * c;
    const double efficiency = (p * c + 1) * c / 2 / waited;
    EXPECT_DOUBLE_EQ(*RingEfficiency(shape, kCausal), efficiency);
    // The diagonal is a pair in 2 c.
    EXPECT_NEAR(efficiency, p / (2 * p - 1), 1 / c);
    EXPECT_EQ(*RingEfficiency(shape, {}), 1);
    EXPECT_EQ(*Balance(shape, {}), 1);
  }
}

// Of c tokens each, ranks differ by c pairs at most a step.
TEST(Layout, StripedIsNearlyBalanced) {
  for (const int64_t ranks : kRanks) {
    const LayoutShape shape = {SequenceLayout::kStriped, ranks * 1000, ranks};
    const double balance = *Balance(shape, kCausal);
    EXPECT_GT(balance, 1 - 1. / 1000);
    EXPECT_LE(balance, 1);
    EXPECT_GT(*RingEfficiency(shape, kCausal), 1 - 1. / 1000);
  }
}

void ExpectRefused(const Status& status, const std::string& words) {
  EXPECT_EQ(status.code(), StatusCode::kInvalidArgument);
  EXPECT_NE(status.ToString().find(words), std::string::npos)
      << status.ToString();
}

TEST(Layout, RefusesWhatDoesNotFit) {
  ExpectRefused(CheckLayout({SequenceLayout::kZigzag, 50, 4}),
                "pad them to 56");
  ExpectRefused(RunsOf({SequenceLayout::kZigzag, 50, 4}, 0).status(), "56");
  ExpectRefused(Balance({SequenceLayout::kZigzag, 50, 4}, {}).status(), "56");
  ExpectRefused(CheckLayout({SequenceLayout::kStriped, 50, 0}), "0 ranks");
  ExpectRefused(CheckLayout({SequenceLayout::kStriped, -1, 2}), "-1 tokens");
  ExpectRefused(RunsOf({SequenceLayout::kStriped, 8, 2}, 2).status(), "rank 2");
  ExpectRefused(RunsOf({SequenceLayout::kStriped, 8, 2}, -1).status(),
                "rank -1");
  const LayoutShape shape = {SequenceLayout::kZigzag, 48, 4};
  EXPECT_TRUE(CheckSameLayout(shape, shape).ok());
  for (const LayoutShape& other :
       {LayoutShape{SequenceLayout::kStriped, 48, 4},
        LayoutShape{SequenceLayout::kZigzag, 64, 4},
        LayoutShape{SequenceLayout::kZigzag, 48, 2}}) {
    ExpectRefused(CheckSameLayout(shape, other), "48 tokens, zigzag over 4");
  }
  EXPECT_EQ(PaddedLength({SequenceLayout::kContiguous, 50, 4}), 52);
  EXPECT_EQ(PaddedLength({SequenceLayout::kZigzag, 56, 4}), 56);
}

TEST(Layout, RefusesRowsThatDoNotFit) {
  const std::vector<TokenRun> runs = {{0, 1, 2}, {6, 1, 2}};
  const Tensor all = Counted(8, 3);
  const auto shard = [&](const Tensor& from, Tensor to) {
    return ShardRows(runs, from.view(), to.view());
  };
  EXPECT_TRUE(shard(all, Counted(4, 3)).ok());
  ExpectRefused(shard(all, Counted(4, 2)), "cannot be sharded");
  ExpectRefused(shard(all, Tensor(DType::kBF16, {4, 3})), "bf16");
  ExpectRefused(shard(all, Tensor(DType::kF32, {4, 1, 3})), "[4, 1, 3]");
  ExpectRefused(shard(all, Counted(5, 3)), "4 tokens cannot have [5, 3]");
  ExpectRefused(shard(Counted(7, 3), Counted(4, 3)), "token 7");
  Tensor seven = Counted(7, 3);
  ExpectRefused(UnshardRows(runs, Counted(4, 3).view(), seven.view()),
                "token 7");
}

}  // namespace
}  // namespace shardproof
