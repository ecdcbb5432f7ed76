// Visibility against its definition, pair by pair.
#include "attention/visibility.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <string>
#include <vector>

namespace shardproof {
namespace {

constexpr int64_t kLength = 24;

// The definition, as the header has it.
bool Sees(const Visibility& v, int64_t p, int64_t j) {
  if (v.causal && j > p) return false;
  if (v.window > 0 && j <= p - v.window) return false;
  if (v.cu_seqlens.empty()) return true;
  if (std::max(p, j) >= v.cu_seqlens.back()) return false;
  return std::none_of(v.cu_seqlens.begin(), v.cu_seqlens.end(), [&](int64_t c) {
    return std::min(j, p) < c && c <= std::max(j, p);
  });
}

std::vector<Visibility> Visibilities() {
  std::vector<Visibility> all;
  for (const bool causal : {false, true}) {
    for (const int64_t window : {0, 1, 2, 7, 24, 100}) {
      for (const std::vector<int64_t>& cu :
           {std::vector<int64_t>{},
            {0, 24},
            {0, 1, 2, 24},
            {0, 8, 16, 24},
            {0, 5, 23, 24},
            // Shorter than the sequence: padding.
            {0, 7, 19}}) {
        all.push_back({causal, window, cu});
      }
    }
  }
  return all;
}

std::vector<TokenRun> Runs() {
  std::vector<TokenRun> all;
  for (const int64_t offset : {0, 1, 5, 8, 23}) {
    for (const int64_t stride : {1, 2, 3, 7}) {
      const int64_t most = (kLength - 1 - offset) / stride + 1;
      for (const int64_t count : {int64_t{0}, int64_t{1}, most / 2, most}) {
        all.push_back({offset, stride, count});
      }
    }
  }
  return all;
}

TEST(Visibility, IsItsDefinitionForEveryPair) {
  for (const Visibility& v : Visibilities()) {
    for (const TokenRun& keys : Runs()) {
      IndexRange before;
      for (int64_t p = 0; p < kLength; ++p) {
        const IndexRange seen = KeysSeen(v, p, keys);
        ASSERT_LE(0, seen.first);
        ASSERT_LE(seen.first, seen.last);
        ASSERT_LE(seen.last, keys.count);
        for (int64_t i = 0; i < keys.count; ++i) {
          ASSERT_EQ(seen.first <= i && i < seen.last,
                    Sees(v, p, keys.Position(i)))
              << "causal " << v.causal << ", window " << v.window << ", "
              << v.cu_seqlens.size() << " ends, query " << p << ", key "
              << keys.Position(i);
        }
        // Empty ranges too: a sweep over queries relies on it.
        ASSERT_GE(seen.first, before.first);
        ASSERT_GE(seen.last, before.last);
        before = seen;
      }
    }
  }
}

TEST(Visibility, CountsPairs) {
  const std::vector<TokenRun> runs = Runs();
  for (const Visibility& v : Visibilities()) {
    int64_t all = 0;
    for (const TokenRun& queries : runs) {
      for (const TokenRun& keys : runs) {
        int64_t want = 0;
        for (int64_t i = 0; i < queries.count; ++i) {
          for (int64_t j = 0; j < keys.count; ++j) {
            want += Sees(v, queries.Position(i), keys.Position(j)) ? 1 : 0;
          }
        }
        ASSERT_EQ(CountPairs(v, queries, keys), want);
        all += want;
      }
    }
    EXPECT_EQ(CountPairs(v, runs, runs), all);
  }
  const TokenRun whole = {.count = 1000};
  EXPECT_EQ(CountPairs({.causal = true}, whole, whole), 1000 * 1001 / 2);
  EXPECT_EQ(CountPairs({}, whole, whole), 1000 * 1000);
  EXPECT_EQ(CountPairs({.causal = true, .window = 10}, whole, whole),
            990 * 10 + 10 * 11 / 2);
}

void ExpectRefused(const Visibility& v, const std::string& words) {
  const Status status = CheckVisibility(v, 24);
  EXPECT_EQ(status.code(), StatusCode::kInvalidArgument);
  EXPECT_NE(status.ToString().find(words), std::string::npos)
      << status.ToString();
}

TEST(Visibility, RefusesBadDocuments) {
  EXPECT_TRUE(CheckVisibility({}, 24).ok());
  EXPECT_TRUE(CheckVisibility({.cu_seqlens = {0, 24}}, 24).ok());
  EXPECT_TRUE(CheckVisibility({.cu_seqlens = {0, 1, 2, 24}}, 24).ok());
  ExpectRefused({.cu_seqlens = {0, 5, 5, 24}}, "document 1");
  ExpectRefused({.cu_seqlens = {0, 0, 24}}, "has no tokens");
  ExpectRefused({.cu_seqlens = {0, 9, 5, 24}},
                "element 1 is 9 and element 2 is 5");
  ExpectRefused({.cu_seqlens = {0, 5, 23}}, "ends with 23");
  ExpectRefused({.cu_seqlens = {0}}, "ends with 0");
  ExpectRefused({.cu_seqlens = {1, 24}}, "begins with 1");
  ExpectRefused({.window = -1}, "window of -1");
}

TEST(Visibility, RefusesBadRuns) {
  EXPECT_TRUE(CheckRun({}).ok());
  EXPECT_TRUE(CheckRun({3, 2, 1}).ok());
  for (const TokenRun& run :
       {TokenRun{-1, 1, 1}, TokenRun{0, 0, 1}, TokenRun{0, 1, -1}}) {
    EXPECT_EQ(CheckRun(run).code(), StatusCode::kInvalidArgument);
  }
}

}  // namespace
}  // namespace shardproof
