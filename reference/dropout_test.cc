#include "reference/dropout.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <vector>

namespace shardproof {
namespace {

// kat_vectors of Random123.
TEST(Philox, PublishedVectors) {
  EXPECT_EQ(Philox4x32({0, 0, 0, 0}, {0, 0}),
            (PhiloxCounter{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}));
  constexpr uint32_t kOnes = 0xffffffff;
  EXPECT_EQ(Philox4x32({kOnes, kOnes, kOnes, kOnes}, {kOnes, kOnes}),
            (PhiloxCounter{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}));
  EXPECT_EQ(Philox4x32({0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344},
                       {0xa4093822, 0x299f31d0}),
            (PhiloxCounter{0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}));
}

// The first vector again, and the last: element by element, at either side of
// each of its words.
TEST(Dropout, ReadsTheWordsInOrder) {
  const auto expect = [](PhiloxCounter words, uint64_t seed, uint64_t call,
                         uint64_t block) {
    for (uint64_t i = 0; i < 4; ++i) {
      const double at = words[i] * 0x1p-32, next = at + 0x1p-32;
      EXPECT_TRUE(DropoutMask(at, seed, call).Keeps(4 * block + i)) << i;
      EXPECT_FALSE(DropoutMask(next, seed, call).Keeps(4 * block + i)) << i;
    }
  };
  expect({0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}, 0, 0, 0);
  // A counter of which i / 4 is the first half, below 2^62.
  expect(Philox4x32({0x243f6a88, 0x05a308d3, 0x13198a2e, 0x03707344},
                    {0xa4093822, 0x299f31d0}),
         0x299f31d0a4093822, 0x0370734413198a2e, 0x05a308d3243f6a88);
}

TEST(Dropout, Threshold) {
  EXPECT_EQ(DropoutThreshold(0), 0U);
  EXPECT_EQ(DropoutThreshold(0.5), 0x80000000U);
  EXPECT_EQ(DropoutThreshold(0.1), 429496730U);  // 429496729.6
  EXPECT_EQ(DropoutThreshold(1 - 0x1p-40), 0xffffffffU);
}

// A fair coin of probability p: counts, and agreements of two masks, within six
// standard deviations.
TEST(Dropout, DropsItsShare) {
  constexpr uint64_t kCount = 1 << 16;
  const auto draw = [](double p, uint64_t seed, uint64_t call, uint64_t from) {
    std::vector<bool> kept;
    const DropoutMask mask(p, seed, call);
    for (uint64_t i = 0; i < kCount; ++i) kept.push_back(mask.Keeps(from + i));
    return kept;
  };
  const auto expect = [](double count, double share) {
    EXPECT_NEAR(count, kCount * share,
                6 * std::sqrt(kCount * share * (1 - share)));
  };
  for (const double p : {0.0, 0.1, 0.5, 0.75}) {
    const std::vector<bool> one = draw(p, 7, 0, 0);
    expect(static_cast<double>(std::count(one.begin(), one.end(), true)),
           1 - p);
    for (const auto& other :
         {draw(p, 8, 0, 0), draw(p, 7, 1, 0), draw(p, 7, 0, kCount),
          draw(p, uint64_t{7} << 32, 0, 0), draw(p, 7, uint64_t{1} << 32, 0),
          draw(p, 7, 0, uint64_t{1} << 40)}) {
      double both = 0;
      for (size_t i = 0; i < kCount; ++i) both += one[i] && other[i] ? 1 : 0;
      expect(both, (1 - p) * (1 - p));
    }
  }
}

TEST(Dropout, Scales) {
  const Arithmetic f32 = Arithmetic::For(DType::kF32);
  const DropoutMask half(0.5, 1, 2), tenth(0.1, 1, 2), none(0, 1, 2);
  int dropped = 0;
  for (uint64_t i = 0; i < 64; ++i) {
    const Bounded y = half.Apply({3}, i, f32);
    EXPECT_EQ(y.value, half.Keeps(i) ? 6 : 0);
    EXPECT_EQ(none.Apply({3}, i, f32).value, 3);
    if (!tenth.Keeps(i)) {
      ++dropped;
      EXPECT_EQ(tenth.Apply({3, 1, 1, 1}, i, f32).worst, 0);
      continue;
    }
    // Scale, product, storage; and the error of the input.
    const Bounded t = tenth.Apply({3}, i, f32);
    EXPECT_DOUBLE_EQ(t.value, 3 / 0.9);
    EXPECT_NEAR(t.worst, 3 * 0x1p-24 * 3 / 0.9, 1e-6 * t.worst);
    EXPECT_GE(t.worst, std::abs(static_cast<double>(3 * (1 / 0.9F)) - 3 / 0.9));
    EXPECT_NEAR(tenth.Apply({3, 1}, i, f32).worst, 1 / 0.9, 1e-5);
  }
  EXPECT_GT(dropped, 0);
}

}  // namespace
}  // namespace shardproof
