// The ranges of kernels against those of attention/visibility.h.
#include "attention/kernels/cuda/sight.h"

#include <gtest/gtest.h>

#include "attention/visibility.h"

namespace shardproof::cuda {
namespace {

constexpr TokenSpan kSpans[] = {{0, 1, 9}, {4, 1, 9}, {9, 1, 7}, {30, 1, 3},
                                {0, 3, 6}, {1, 2, 8}, {2, 5, 4}, {0, 1, 0}};

TokenRun RunOf(const TokenSpan& span) {
  return {span.offset, span.stride, span.count};
}

template <class F>
void ForSights(const F& f) {
  for (const TokenSpan& queries : kSpans) {
    for (const TokenSpan& keys : kSpans) {
      for (const bool causal : {false, true}) {
        for (const int window : {0, 1, 2, 5, 100}) {
          f(Sight{queries, keys, causal, window});
        }
      }
    }
  }
}

bool Sees(const Sight& sight, int query, int key) {
  const IndexRange seen = shardproof::KeysSeen(
      {.causal = sight.causal, .window = sight.window},
      RunOf(sight.queries).Position(query), RunOf(sight.keys));
  return key >= seen.first && key < seen.last;
}

TEST(SightTest, SeesWhatVisibilitySees) {
  ForSights([](const Sight& sight) {
    for (int i = 0; i < sight.queries.count; ++i) {
      for (int j = 0; j < sight.keys.count; ++j) {
        const Seen keys = KeysSeen(sight, i), queries = QueriesSeeing(sight, j);
        const bool sees = Sees(sight, i, j);
        EXPECT_EQ(j >= keys.first && j < keys.last, sees);
        EXPECT_EQ(i >= queries.first && i < queries.last, sees);
      }
    }
  });
}

TEST(SightTest, RangesOfTiles) {
  int whole = 0, parts = 0;
  ForSights([&](const Sight& sight) {
    const int rows = sight.queries.count;
    for (int first = 0; first < rows; ++first) {
      for (int last = first; last < rows; ++last) {
        const SeenByTile tile =
            TileSees(KeysSeen(sight, first), KeysSeen(sight, last));
        for (int j = 0; j < sight.keys.count; ++j) {
          bool some = false, all = true;
          for (int i = first; i <= last; ++i) {
            some = some || Sees(sight, i, j);
            all = all && Sees(sight, i, j);
          }
          if (some) {
            EXPECT_TRUE(j >= tile.some.first && j < tile.some.last);
          }
          EXPECT_EQ(tile.IsWhole(j, j + 1), all);
          ++(all ? whole : parts);
        }
      }
    }
  });
  EXPECT_GT(whole, 1000);
  EXPECT_GT(parts, 1000);
}

TEST(SightTest, Refusals) {
  const TokenSpan some = {0, 1, 4};
  EXPECT_EQ(WhyNotSight({some, some}), nullptr);
  EXPECT_NE(WhyNotSight({{0, 0, 4}, some}), nullptr);
  EXPECT_NE(WhyNotSight({some, {-1, 1, 4}}), nullptr);
  EXPECT_NE(WhyNotSight({some, {0, 1, -4}}), nullptr);
  EXPECT_NE(WhyNotSight({some, some, true, -1}), nullptr);
  EXPECT_NE(WhyNotSight({some, {1 << 30, 2, 1 << 29}}), nullptr);
  EXPECT_EQ(WhyNotSight({some, {1 << 29, 2, 1 << 29}}), nullptr);
}

}  // namespace
}  // namespace shardproof::cuda
