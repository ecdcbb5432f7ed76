#include "tools/harness/sharding.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <numeric>

#include "tools/harness/expectation.h"

namespace shardproof {
namespace {

// The global index of every local element, the slow way.
std::vector<int64_t> Indices(const Shape& global, const LocalBlock& block) {
  std::vector<std::vector<int64_t>> index(block.ranges.size());
  for (size_t d = 0; d < block.ranges.size(); ++d) {
    for (const Interval& r : block.ranges[d]) {
      for (int64_t i = r.begin; i < r.end; ++i) index[d].push_back(i);
    }
  }
  std::vector<int64_t> out = {0};
  for (int d = 0; d < global.rank(); ++d) {
    std::vector<int64_t> next;
    for (const int64_t at : out) {
      for (const int64_t i : index[d]) next.push_back(at * global[d] + i);
    }
    out = std::move(next);
  }
  return out;
}

void ExpectRunsCover(const Shape& global, const LocalBlock& block) {
  const std::vector<int64_t> want = Indices(global, block);
  const int64_t n = block.shape.NumElements();
  ASSERT_EQ(static_cast<int64_t>(want.size()), n);
  for (const auto& [begin, end] : std::vector<Interval>{
           {0, n}, {n / 3, n}, {0, n / 2}, {n / 3, n / 2 + 1}, {n, n}}) {
    std::vector<int64_t> got;
    int64_t next = begin;
    ForEachRun(global, block, begin, end, [&](const IndexRun& run) {
      EXPECT_EQ(run.local, next);
      EXPECT_GT(run.length, 0);
      for (int64_t i = 0; i < run.length; ++i) got.push_back(run.global + i);
      next += run.length;
    });
    const int64_t stop = std::max(begin, std::min(end, n));
    EXPECT_EQ(got,
              std::vector<int64_t>(want.begin() + begin, want.begin() + stop));
  }
}

TEST(Sharding, RunsCoverEveryBlockInOrder) {
  const Shape shapes[] = {{12}, {7, 5}, {3, 8, 5}, {2, 3, 4, 5}, {4, 0, 3}};
  for (const Shape& shape : shapes) {
    for (const int ranks : {1, 2, 3, 5}) {
      for (int r = 0; r < ranks; ++r) {
        ExpectRunsCover(shape, Replicated().block(shape, r, ranks));
        for (int d = 0; d < shape.rank(); ++d) {
          ExpectRunsCover(shape, Shard(d).block(shape, r, ranks));
        }
      }
    }
  }
  // Zigzag over dimension 1 and an interval of dimension 0.
  ExpectRunsCover({6, 8, 3}, MakeBlock({{{1, 4}}, {{0, 2}, {6, 8}}, {{0, 3}}}));
  ExpectRunsCover({6, 8}, MakeBlock({{{5, 6}, {0, 1}}, {{6, 8}, {0, 2}}}));
}

TEST(Sharding, JoinsWhatIsContiguous) {
  int runs = 0;
  const Shape shape = {6, 4, 5};
  ForEachRun(shape, Shard(0).block(shape, 1, 2), 0, 60,
             [&](const IndexRun& run) {
               ++runs;
               EXPECT_EQ(run.global, 60);
               EXPECT_EQ(run.length, 60);
             });
  EXPECT_EQ(runs, 1);
}

TEST(Sharding, ShardsAreDisjointAndComplete) {
  const Shape shape = {5, 7};
  for (const Sharding& s : {Shard(0), Shard(1), ShardSizes(1, {0, 6, 1}),
                            ShardSizes(0, {3, 0, 2})}) {
    std::vector<int> held(35, 0);
    for (int r = 0; r < 3; ++r) {
      for (const int64_t i : Indices(shape, s.block(shape, r, 3))) ++held[i];
    }
    EXPECT_EQ(held, std::vector<int>(35, 1)) << s.name;
  }
}

TEST(Sharding, NamesSaySizes) {
  EXPECT_EQ(ShardSizes(1, {0, 6, 1}).name, "shard(1, sizes 0 6 1)");
  EXPECT_EQ(PerRankSizes(0, {4, 0}).name, "per rank, sizes 4 0 of dimension 0");
}

TEST(Sharding, SplitsEvenlyWithTheFirstRanksLonger) {
  const Shape shape = {11};
  std::vector<int64_t> lengths;
  for (int r = 0; r < 4; ++r) {
    lengths.push_back(Shard(0).block(shape, r, 4).shape[0]);
  }
  EXPECT_EQ(lengths, (std::vector<int64_t>{3, 3, 3, 2}));
}

TEST(Sharding, OneRankHoldsAllAndTheOthersNothing) {
  const Sharding s = OnRank(2);
  EXPECT_EQ(s.block({3, 4}, 2, 3).shape, (Shape{3, 4}));
  EXPECT_EQ(s.block({3, 4}, 1, 3).shape.NumElements(), 0);
  EXPECT_EQ(PerRankSizes(0, {4, 0}).block({9}, 0, 2).shape, Shape{4});
  EXPECT_EQ(PerRankSizes(0, {4, 0}).block({9}, 1, 2).shape, Shape{0});
}

int64_t Length(const Segments& segments) {
  int64_t n = 0;
  for (const Interval& s : segments) n += s.end - s.begin;
  return n;
}

TEST(Sample, KeepsTheBordersOfEveryShard) {
  Tensors tensors = {Output("y", DType::kF32, {1000, 64}, Shard(0))};
  tensors[0].SampleDimension(0);
  const Sample sample =
      PlanSample(tensors, 3, 0, {.elements = 640, .flops = 0}, 7);
  ASSERT_TRUE(sample.contains("y"));
  const std::vector<int64_t>& rows = sample.at("y");
  for (const int64_t border : {0, 333, 334, 666, 667, 999}) {
    EXPECT_TRUE(std::binary_search(rows.begin(), rows.end(), border)) << border;
  }
  EXPECT_TRUE(std::is_sorted(rows.begin(), rows.end()));
  EXPECT_LT(rows.size(), 20U);
  int64_t compared = 0;
  for (int r = 0; r < 3; ++r) {
    compared += Length(SampledSegments(tensors[0], r, 3, sample));
  }
  EXPECT_EQ(compared, static_cast<int64_t>(rows.size()) * 64);
}

// The limit holds for all ranks together, whatever each of them holds.
TEST(Sample, CountsWhatEachRankCompares) {
  constexpr int kRanks = 4;
  for (const Sharding& sharding :
       {PerRank(), PerRankSizes(0, {2000, 0, 500, 3000}), Replicated()}) {
    Tensors tensors = {Output("y", DType::kF32, {1000}, sharding)};
    tensors[0].SampleDimension(0);
    const Sample sample =
        PlanSample(tensors, kRanks, 0, {.elements = 400, .flops = 0}, 7);
    int64_t compared = 0, last = 0, longest = 0;
    for (int r = 0; r < kRanks; ++r) {
      compared += Length(ComparedSegments(tensors[0], r, kRanks, sample));
      const int64_t held = tensors[0].BlockOf(r, kRanks).shape[0];
      if (held == 0) continue;
      longest = std::max(longest, held);
      const Segments all = SampledSegments(tensors[0], r, kRanks, sample);
      EXPECT_EQ(all.back().end, held);
      last = std::max(last, all[all.size() - 2].begin);
    }
    // The borders come on top, and chance says how many of a part are chosen.
    EXPECT_GE(compared, 380);
    EXPECT_LE(compared, 420);
    // Whatever the shape says of it, all of what is held is looked at.
    EXPECT_GT(last, longest * 9 / 10);
  }
}

TEST(Sample, IsEmptyWhereEverythingIsLookedAt) {
  Tensors tensors = {Output("y", DType::kF32, {100, 64}, Shard(0)),
                     Output("z", DType::kF32, {100, 64}, Shard(0))};
  tensors[0].SampleDimension(0);
  EXPECT_TRUE(PlanSample(tensors, 2, 0, {.elements = 6400}, 1).empty());
  // z has no dimension to sample.
  const Sample some = PlanSample(tensors, 2, 1e9, {.flops = 1e8}, 1);
  EXPECT_EQ(some.size(), 1U);
  EXPECT_EQ(Length(SampledSegments(tensors[1], 0, 2, some)), 50 * 64);
}

TEST(Sample, PartsOfSegmentsAreDisjointAndComplete) {
  const Segments segments = {{0, 3}, {10, 11}, {20, 40}};
  for (const int parts : {1, 2, 3, 7, 30}) {
    std::vector<int64_t> all;
    for (int part = 0; part < parts; ++part) {
      for (const Interval& s : PartOf(segments, part, parts)) {
        for (int64_t i = s.begin; i < s.end; ++i) all.push_back(i);
      }
    }
    std::vector<int64_t> want;
    for (const Interval& s : segments) {
      for (int64_t i = s.begin; i < s.end; ++i) want.push_back(i);
    }
    EXPECT_EQ(all, want) << parts;
  }
}

}  // namespace
}  // namespace shardproof
