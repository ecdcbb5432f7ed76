// The maps of registers and of operands in shared memory against the text and the figures of the PTX ISA.
#include "attention/kernels/cuda/warpgroup/wgmma.h"

#include <gtest/gtest.h>

#include <cstdint>
#include <set>
#include <utility>

#include "attention/kernels/cuda/warpgroup/tiling.h"

namespace shardproof::cuda {
namespace {

// "row = groupID for di where i < 2 ..." is that of each warp of mma.m16n8k16; the figure of D gives warp w of the four the
// rows 16 w to 16 w + 15, and d0, d1 | d2, d3 of each 8 columns the rows lane / 4 and lane / 4 + 8.
TEST(WgmmaTest, ResultsAreThoseOfPtx) {
  for (int thread = 0; thread < kWarpgroupThreads; ++thread) {
    const int warp = thread / 32, group = thread % 32 / 4,
              in_group = thread % 4;
    for (int i = 0; i < 64; ++i) {
      const int row = 16 * warp + group + (i % 4 >= 2 ? 8 : 0);
      const int column = i / 4 * 8 + in_group * 2 + (i & 1);
      EXPECT_EQ(PlaceInWgmmaD(thread, i), (FragmentPlace{row, column}))
          << thread << " " << i;
    }
    for (int i = 0; i < 8; ++i) {
      const int row = 16 * warp + group + (i / 2 % 2 == 1 ? 8 : 0);
      const int column = in_group * 2 + (i & 1) + (i >= 4 ? 8 : 0);
      EXPECT_EQ(PlaceInWgmmaA(thread, i), (FragmentPlace{row, column}));
    }
  }
  // Of the figures: T0 holds d0 = (0, 0), d3 = (8, 1) and d4 = (0, 8); T31 d0 = (7, 6); T127 d2 = (63, 6).
  EXPECT_EQ(PlaceInWgmmaD(0, 3), (FragmentPlace{8, 1}));
  EXPECT_EQ(PlaceInWgmmaD(0, 4), (FragmentPlace{0, 8}));
  EXPECT_EQ(PlaceInWgmmaD(31, 0), (FragmentPlace{7, 6}));
  EXPECT_EQ(PlaceInWgmmaD(127, 2), (FragmentPlace{63, 6}));
  EXPECT_EQ(PlaceInWgmmaA(127, 7), (FragmentPlace{63, 15}));
}

TEST(WgmmaTest, EveryResultIsHeldOnce) {
  std::set<std::pair<int, int>> places;
  for (int thread = 0; thread < kWarpgroupThreads; ++thread) {
    for (int i = 0; i < 64; ++i) {
      const FragmentPlace place = PlaceInWgmmaD(thread, i);
      EXPECT_TRUE(place.row < kWgmmaRows && place.column < 128);
      EXPECT_TRUE(places.emplace(place.row, place.column).second);
    }
  }
  EXPECT_EQ(places.size(), 64u * 128);
}

// The table of the descriptor: bits 0 to 13, 16 to 29 and 32 to 45 are the start and the two offsets, each
// (x & 0x3ffff) >> 4; 49 to 51 the base offset; 62 and 63 the swizzling mode: 0 none, 1 of 128 bytes, 2 of 64, 3 of 32.
TEST(WgmmaTest, DescriptorsAreThoseOfPtx) {
  EXPECT_EQ(Encode({.start = 0x12340, .leading = 0x4000, .stride = 0x400}),
            uint64_t{0x1234} | uint64_t{0x400} << 16 | uint64_t{0x40} << 32 |
                uint64_t{1} << 62);
  EXPECT_EQ(Encode({.start = 0, .stride = 0, .swizzle = Swizzle::kNone}), 0u);
  EXPECT_EQ(Encode({.stride = 0, .swizzle = Swizzle::k64}) >> 62, 2u);
  EXPECT_EQ(Encode({.stride = 0, .swizzle = Swizzle::k32}) >> 62, 3u);
  for (const Swizzle swizzle :
       {Swizzle::kNone, Swizzle::k128, Swizzle::k64, Swizzle::k32}) {
    const OperandLayout layout = {0x38ff0, 0x3fff0, 0x10, swizzle};
    EXPECT_EQ(Decode(Encode(layout)), layout);
  }
}

// Figure of K-major 128-byte swizzling: in row r of an atom, the chunk of 16 bytes c lies at c xor r. The next 8 rows are a
// stride further, and 16 elements of depth are a start 32 bytes further.
TEST(WgmmaTest, KMajorLayoutIsThatOfPtx) {
  constexpr uint32_t kStart = 4 * kAtomBytes;
  for (int row = 0; row < 64; ++row) {
    for (int k = 0; k < 64; ++k) {
      const auto r = static_cast<uint32_t>(row),
                 chunk = static_cast<uint32_t>(k) / 8;
      const uint32_t want = kStart + r / 8 * 1024 + r % 8 * 128 +
                            ((chunk ^ (r % 8)) * 16) +
                            static_cast<uint32_t>(k % 8) * 2;
      const OperandLayout layout = {
          .start = kStart + static_cast<uint32_t>(k / 16) * 32};
      EXPECT_EQ(ElementAddress(layout, Major::kDepth, row, k % 16), want)
          << row << " " << k;
    }
  }
}

// MN-major 128-byte swizzling: "leading: from the first (swizzle-byte-size / 16) rows to the next", in units of 128 bits, so
// 64 elements; "stride: from the first 8 columns to the next 8 columns".
TEST(WgmmaTest, MnMajorLayoutIsThatOfPtx) {
  const OperandLayout layout = {
      .start = 2048, .leading = 0x4000, .stride = 1024};
  for (int n = 0; n < 128; ++n) {
    for (int k = 0; k < 16; ++k) {
      const auto column = static_cast<uint32_t>(n),
                 depth = static_cast<uint32_t>(k);
      const uint32_t want =
          2048 + column / 64 * 0x4000 + depth / 8 * 1024 + depth % 8 * 128 +
          ((column % 64 / 8) ^ (depth % 8)) * 16 + column % 8 * 2;
      EXPECT_EQ(ElementAddress(layout, Major::kRows, n, k), want);
    }
  }
}

// Without swizzling, core matrices of 8 lines of 16 bytes lie anywhere: by leading next in depth, by stride in rows.
TEST(WgmmaTest, UnswizzledLayoutIsThatOfPtx) {
  const OperandLayout layout = {
      .start = 64, .leading = 128, .stride = 256, .swizzle = Swizzle::kNone};
  EXPECT_EQ(ElementAddress(layout, Major::kDepth, 0, 1), 66u);
  EXPECT_EQ(ElementAddress(layout, Major::kDepth, 1, 0), 80u);
  EXPECT_EQ(ElementAddress(layout, Major::kDepth, 0, 8), 192u);
  EXPECT_EQ(ElementAddress(layout, Major::kDepth, 8, 0), 320u);
}

// The narrower atoms: 4 and 2 chunks in a line, turned over by as many lines.
TEST(WgmmaTest, NarrowAtomsSwizzleFewerBits) {
  std::set<uint32_t> chunks64, chunks32;
  for (int row = 0; row < 8; ++row) {
    const auto at = [&](Swizzle swizzle) {
      return ElementAddress(
                 {.stride = 8 * LineBytes(swizzle), .swizzle = swizzle},
                 Major::kDepth, row, 0) %
             LineBytes(swizzle) / kChunkBytes;
    };
    chunks64.insert(at(Swizzle::k64));
    chunks32.insert(at(Swizzle::k32));
    EXPECT_EQ(at(Swizzle::k64), static_cast<uint32_t>(row) / 2);
    EXPECT_EQ(at(Swizzle::k32), static_cast<uint32_t>(row) / 4);
  }
  EXPECT_EQ(chunks64.size(), 4u);
  EXPECT_EQ(chunks32.size(), 2u);
}

// 8 lines that lie at one column of a tile, or one line of 128 bytes, are in all 32 banks: neither wgmma, which reads
// 8 x 8 elements at a time, nor TMA, which writes lines, comes twice to a bank.
TEST(WgmmaTest, CoreMatricesAreInAllBanks) {
  for (int k = 0; k < 64; k += 8) {
    std::set<uint32_t> quads;
    for (int row = 0; row < 8; ++row) {
      quads.insert(ElementAddress({}, Major::kDepth, row, k) % 128 / 16);
    }
    EXPECT_EQ(quads.size(), 8u) << k;
  }
}

template <class Tiling>
void ExpectFits() {
  EXPECT_LE(Tiling::kSharedBytes, 227u << 10);
  // Descriptors have 18 bits of an address.
  EXPECT_LE(Tiling::kSharedBytes, 1u << 18);
  for (const uint32_t at : {Tiling::kQ, Tiling::KeysAt(0), Tiling::KeysAt(1),
                            Tiling::ValuesAt(0), Tiling::ValuesAt(1)}) {
    EXPECT_EQ(at % kAtomBytes, 0u);
  }
  EXPECT_LE(Tiling::kKeys, 256);
  EXPECT_EQ(Tiling::ValuesLeft(Tiling::kStages - 1),
            Tiling::BarrierAt(Tiling::kBarrierCount - 1));
}

TEST(WgmmaTest, TilingsFit) {
  ExpectFits<WarpgroupTiling<64>>();
  ExpectFits<WarpgroupTiling<128>>();
}

}  // namespace
}  // namespace shardproof::cuda
