// Tiles in shared memory: bank conflicts by counting, operands and products by elements, and copies by when they land.
#include "attention/kernels/cuda/tile.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <limits>
#include <set>
#include <vector>

#include "attention/kernels/cuda/products.h"
#include "attention/kernels/cuda/testing/tile_launcher.h"
#include "reference/dtype.h"

namespace shardproof::cuda {
namespace {

using testing::TileLauncher;

constexpr int kLanes = 32;

// A warp's access of 16 bytes a lane goes in four turns of 8 lanes. The number of turns that the 32 banks of 4 bytes take
// for lanes first to first + 7.
template <class OffsetOf>
int TurnsOf(int first, const OffsetOf& offset_of) {
  std::array<std::set<uint32_t>, 32> words;
  for (int lane = first; lane < first + 8; ++lane) {
    for (uint32_t byte = 0; byte < kChunkBytes; byte += 4) {
      const uint32_t word = (offset_of(lane) + byte) / 4;
      words[word % 32].insert(word);
    }
  }
  size_t most = 0;
  for (const auto& bank : words) most = std::max(most, bank.size());
  return static_cast<int>(most);
}

// The most of any load of an operand and any copy of a tile of 64 rows.
template <int kColumns, bool kSwizzles>
int MostTurns() {
  int most = 0;
  for (int row = 0; row < 64; row += 8) {
    for (int column = 0; column < kColumns; column += 16) {
      for (const auto& address :
           {RowAddressOfA, RowAddressOfB, RowAddressOfTransposedB}) {
        for (int first = 0; first < kLanes; first += 8) {
          most = std::max(most, TurnsOf(first, [&](int lane) {
                            return LaneOffset<kColumns, kSwizzles>(
                                address(lane), row, column);
                          }));
        }
      }
    }
  }
  for (int first = 0; first < 64 * kColumns / kChunkElements; first += 8) {
    most = std::max(most, TurnsOf(first, [](int n) {
                      const FragmentPlace place = CopiedPlace<kColumns>(n);
                      return ChunkOffset<kColumns, kSwizzles>(place.row,
                                                              place.column);
                    }));
  }
  return most;
}

TEST(TileTest, NoBankConflicts) {
  EXPECT_EQ((MostTurns<64, true>()), 1);
  EXPECT_EQ((MostTurns<128, true>()), 1);
  // And there would be some: what is counted can be counted.
  EXPECT_EQ((MostTurns<64, false>()), 8);
  EXPECT_EQ((MostTurns<128, false>()), 8);
}

template <int kColumns>
void ExpectChunksOnce() {
  std::set<uint32_t> offsets;
  constexpr int kRows = 32, kChunks = kColumns / kChunkElements;
  for (int row = 0; row < kRows; ++row) {
    for (int chunk = 0; chunk < kChunks; ++chunk) {
      const uint32_t offset = ChunkOffset<kColumns>(row, chunk);
      EXPECT_EQ(offset % kChunkBytes, 0u);
      EXPECT_LT(offset, TileBytes<kColumns>(kRows));
      EXPECT_EQ(offset / (kColumns * 2), static_cast<uint32_t>(row));
      offsets.insert(offset);
    }
  }
  EXPECT_EQ(offsets.size(), static_cast<size_t>(kRows * kChunks));
}

TEST(TileTest, EveryChunkHasAPlace) {
  ExpectChunksOnce<64>();
  ExpectChunksOnce<128>();
}

// The short form of the address is that of the element.
template <int kColumns, bool kSwizzles>
void ExpectLaneOffsets() {
  for (int row = 0; row < 64; row += 8) {
    for (int column = 0; column < kColumns; column += 16) {
      for (const auto& address :
           {RowAddressOfA, RowAddressOfB, RowAddressOfTransposedB}) {
        for (int lane = 0; lane < kLanes; ++lane) {
          const FragmentPlace place = address(lane);
          ASSERT_EQ(
              (LaneOffset<kColumns, kSwizzles>(place, row, column)),
              (ChunkOffset<kColumns, kSwizzles>(
                  row + place.row, (column + place.column) / kChunkElements)));
        }
      }
    }
  }
}

TEST(TileTest, LaneOffsetsAreThoseOfElements) {
  ExpectLaneOffsets<64, true>();
  ExpectLaneOffsets<128, true>();
  ExpectLaneOffsets<64, false>();
  ExpectLaneOffsets<128, false>();
}

// Small integers, none like another nearby: sums of products of them are exact, and so they are with 64ths of such sums.
template <class T>
std::vector<T> Numbers(int n, int salt) {
  std::vector<T> out;
  for (int i = 0; i < n; ++i) {
    out.push_back(static_cast<T>(
        static_cast<float>((i * 37 + salt + i / 50 * 11) % 17 - 8)));
  }
  return out;
}

// value(number of the row, column, result) in place of each result of a warp.
template <class F, int kRowTiles, int kOperands>
void ForResults(int lane, float (&c)[kRowTiles][kOperands][4], const F& value) {
  for (int r = 0; r < kRowTiles; ++r) {
    for (int n = 0; n < kOperands; ++n) {
      for (int i = 0; i < 4; ++i) {
        const FragmentPlace place = PlaceInC(lane, i);
        c[r][n][i] =
            value(2 * r + i / 2, n * kMmaColumns + place.column, c[r][n][i]);
      }
    }
  }
}

// Products of both forms by four warps of 32 rows each, by themselves; what the second one takes are 64ths.
template <class T, int kDepth>
void ExpectProducts(int rows_there) {
  constexpr int kRows = 128, kOthers = 64, kThreads = 128;
  const std::vector<T> a = Numbers<T>(kRows * kDepth, 3);
  const std::vector<T> b = Numbers<T>(kOthers * kDepth, 5);
  std::vector<float> scores(kRows * kOthers), out(kRows * kDepth);
  TileLauncher launch;
  const Status status = launch(
      {1, kThreads, TileBytes<kDepth>(kRows + kOthers)}, 11,
      [&](FiberTileContext& context) {
        constexpr uint32_t kB = TileBytes<kDepth>(kRows);
        CopyTile<kRows, kDepth, kThreads>(context, 0, a.data(), kDepth, kRows);
        CopyTile<kOthers, kDepth, kThreads>(context, kB, b.data(), kDepth,
                                            rows_there);
        context.CommitCopies();
        context.WaitForCopies<0>();
        context.Sync();
        const int lane = context.thread() % kLanes;
        const int row = context.thread() / kLanes * 32;
        float s[2][8][4], o[2][kDepth / 8][4];
        SetZero(s);
        SetZero(o);
        MultiplyRows<T, kDepth, true>(context, s, 0, row, kB);
        const auto keep = [&](auto& results, std::vector<float>& to,
                              int columns) {
          ForResults(lane, results, [&](int number, int column, float value) {
            const int at = (row + RowOfLane(lane, number)) * columns + column;
            to[static_cast<size_t>(at)] = value;
            return value / 64;
          });
        };
        keep(s, scores, kOthers);
        MultiplyResults<T, true>(context, o, s, kB);
        keep(o, out, kDepth);
      });
  ASSERT_TRUE(status.ok()) << status.ToString();
  const auto b_at = [&](int row, int k) {
    return row < rows_there
               ? static_cast<float>(b[static_cast<size_t>(row * kDepth + k)])
               : 0.0F;
  };
  std::vector<float> p(kRows * kOthers);
  for (int i = 0; i < kRows; ++i) {
    for (int j = 0; j < kOthers; ++j) {
      float sum = 0;
      for (int k = 0; k < kDepth; ++k) {
        sum += static_cast<float>(a[static_cast<size_t>(i * kDepth + k)]) *
               b_at(j, k);
      }
      const auto at = static_cast<size_t>(i * kOthers + j);
      ASSERT_EQ(scores[at], sum) << i << " " << j;
      p[at] = static_cast<float>(static_cast<T>(sum / 64));
    }
  }
  for (int i = 0; i < kRows; ++i) {
    for (int k = 0; k < kDepth; ++k) {
      float sum = 0;
      for (int j = 0; j < kOthers; ++j) {
        sum += p[static_cast<size_t>(i * kOthers + j)] * b_at(j, k);
      }
      ASSERT_EQ(out[static_cast<size_t>(i * kDepth + k)], sum) << i << " " << k;
    }
  }
}

TEST(TileTest, ProductsOfWarps) {
  for (const int rows_there : {64, 63, 7}) {
    ExpectProducts<BFloat16, 64>(rows_there);
    ExpectProducts<Float16, 128>(rows_there);
  }
}

// Some copies land at once, some when they are waited for, and those of a later group not even then.
TEST(TileTest, CopiesLandWhenTheyAreWaitedFor) {
  constexpr int kThreads = 32, kCopies = 20;
  alignas(16) const std::array<uint32_t, 4> from = {1, 2, 3, 4};
  int at_once = 0, when_waited = 0, later = 0;
  TileLauncher launch;
  const Status status = launch(
      {1, kThreads, kThreads * kCopies * 2 * kChunkBytes}, 5,
      [&](FiberTileContext& context) {
        const auto offset = [&](int i) {
          return static_cast<uint32_t>((context.thread() * 2 * kCopies + i)) *
                 kChunkBytes;
        };
        const auto landed = [&](int i) {
          return std::memcmp(context.SharedAt(offset(i)), from.data(), 16) == 0;
        };
        for (int group = 0; group < 2; ++group) {
          for (int i = 0; i < kCopies; ++i) {
            context.CopyAsync<16>(offset(group * kCopies + i), from.data(),
                                  true);
          }
          context.CommitCopies();
        }
        for (int i = 0; i < 2 * kCopies; ++i) at_once += landed(i) ? 1 : 0;
        context.WaitForCopies<1>();
        for (int i = 0; i < kCopies; ++i) when_waited += landed(i) ? 1 : 0;
        for (int i = kCopies; i < 2 * kCopies; ++i) later += landed(i) ? 1 : 0;
        context.WaitForCopies<0>();
        for (int i = kCopies; i < 2 * kCopies; ++i) EXPECT_TRUE(landed(i));
        // Zeros of 4 bytes.
        context.CopyAsync<4>(offset(0), from.data(), false);
        context.CommitCopies();
        context.WaitForCopies<0>();
        EXPECT_EQ(std::to_integer<int>(*context.SharedAt(offset(0))), 0);
        EXPECT_EQ(std::to_integer<int>(*context.SharedAt(offset(0) + 4)), 2);
      });
  ASSERT_TRUE(status.ok()) << status.ToString();
  constexpr int kAll = kThreads * kCopies;
  EXPECT_EQ(when_waited, kAll);
  EXPECT_TRUE(at_once > kAll / 2 && at_once < 3 * kAll / 2) << at_once;
  EXPECT_TRUE(later > kAll / 4 && later < 3 * kAll / 4) << later;
}

TEST(TileTest, CopiesThatAreNotWaitedForAreReported) {
  alignas(16) const std::array<uint32_t, 4> from = {1, 2, 3, 4};
  TileLauncher launch;
  const Status status =
      launch({1, 32, 64 * kChunkBytes}, 5, [&](FiberTileContext& context) {
        for (uint32_t i = 0; i < 64; ++i) {
          context.CopyAsync<16>(i * kChunkBytes, from.data(), true);
        }
        context.CommitCopies();
      });
  EXPECT_FALSE(status.ok());
}

// A warp whose lanes part at an instruction of the whole warp.
TEST(TileTest, DivergenceIsReported) {
  TileLauncher launch;
  const Status status =
      launch({1, 32, 1024}, 5, [&](FiberTileContext& context) {
        uint32_t words[4];
        if (context.thread() != 7) context.LoadMatrices<false>(words, 0);
      });
  EXPECT_FALSE(status.ok());
}

}  // namespace
}  // namespace shardproof::cuda
