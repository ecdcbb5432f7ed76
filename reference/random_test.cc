#include "reference/random.h"

#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <set>
#include <vector>

namespace shardproof {
namespace {

std::vector<double> Draw(const Distribution& d, const StreamKey& key,
                         int64_t begin, int64_t n) {
  std::vector<double> x(static_cast<size_t>(n));
  FillDouble(d, key, begin, n, x.data());
  return x;
}

// Inputs must be the same on every machine and in every release: results name
// the seed only. The numbers come from an implementation in Python.
TEST(Random, Golden) {
  const StreamKey key{.seed = 1, .tensor = TensorId("x"), .rank = 2};
  EXPECT_EQ(TensorId("x"), 0xaf63f54c86021707u);
  EXPECT_EQ(RandomBits(key, 0), 0x71a9da7e888cd729u);
  EXPECT_EQ(RandomBits(key, 1), 0x3dcd426a68a75f88u);
  EXPECT_EQ(RandomBits(key, uint64_t{1} << 40), 0x81e37bdc5cdb6234u);
  EXPECT_EQ(
      Draw(Uniform(DType::kF64), key, 0, 2),
      (std::vector<double>{-0x1.cac4b02eee660p-4, -0x1.08caf6565d62cp-1}));
  EXPECT_EQ(Draw(*ExactSum(DType::kBF16, 4), key, 0, 6),
            (std::vector<double>{34, 26, 28, -51, -37, 11}));
}

TEST(Random, BlocksAgreeWithTheWhole) {
  const StreamKey key{.seed = 9, .tensor = 4, .rank = 5};
  for (const Distribution& d :
       {Uniform(DType::kBF16), Normal(DType::kF32), *ExactSum(DType::kE5M2, 16),
        *ExactProduct(DType::kI8, 16), *ExactAverage(DType::kE4M3, 7),
        ExactLinear(DType::kBF16, DType::kBF16, 512, 1000, 640)->w}) {
    const std::vector<double> whole = Draw(d, key, 0, 5000);
    for (int64_t begin : {0, 1, 17, 2048, 4000}) {
      const std::vector<double> part = Draw(d, key, begin, 999);
      for (int64_t i = 0; i < 999; ++i) {
        ASSERT_EQ(part[i], whole[begin + i]) << begin << " " << i;
      }
    }
    std::vector<char> stored(size_t{5000} * 8);
    Fill(d, key, 0, 5000, stored.data());
    std::vector<double> back(5000);
    ToDouble(d.dtype, stored.data(), 5000, back.data());
    EXPECT_EQ(back, whole);
  }
}

TEST(Random, BitsAreBalancedAndIndependentOfTheirNeighbours) {
  constexpr int kN = 1 << 16;
  for (int bit = 0; bit < 64; ++bit) {
    int ones = 0;
    int flips_index = 0;
    int flips_rank = 0;
    for (uint64_t i = 0; i < kN; ++i) {
      const uint64_t here = RandomBits({1, 2, 3}, i) >> bit & 1;
      ones += here;
      flips_index += here ^ (RandomBits({1, 2, 3}, i + 1) >> bit & 1);
      flips_rank += here ^ (RandomBits({1, 2, 4}, i) >> bit & 1);
    }
    // Five standard deviations of a fair coin.
    const double most = 2.5 * std::sqrt(kN);
    EXPECT_NEAR(ones, 0.5 * kN, most);
    EXPECT_NEAR(flips_index, 0.5 * kN, most);
    EXPECT_NEAR(flips_rank, 0.5 * kN, most);
  }
}

TEST(Random, MomentsAreThoseOfTheDistribution) {
  constexpr int kN = 1 << 18;
  const auto moments = [&](const Distribution& d) {
    double sum = 0;
    double squares = 0;
    double largest = 0;
    for (double x : Draw(d, {5, 6, 7}, 0, kN)) {
      sum += x;
      squares += x * x;
      largest = std::max(largest, std::abs(x));
    }
    return std::array<double, 3>{sum / kN, std::sqrt(squares / kN), largest};
  };
  const auto uniform = moments(Uniform(DType::kF32));
  EXPECT_NEAR(uniform[0], 0, 0.01);
  EXPECT_NEAR(uniform[1], std::sqrt(1.0 / 3), 0.01);
  EXPECT_LE(uniform[2], 1);
  EXPECT_GT(uniform[2], 0.999);
  const auto normal = moments(Normal(DType::kF32));
  EXPECT_NEAR(normal[0], 0, 0.01);
  EXPECT_NEAR(normal[1], 0.2887, 0.01);
  EXPECT_LE(normal[2], 1);
}

// A misplaced chunk, a wrong rank and a wrong tensor must show: no two windows of 64 are alike.
TEST(Random, AperiodicAndDifferentOnEveryRank) {
  for (const Distribution& base :
       {*ExactSum(DType::kBF16, 8), *ExactSum(DType::kE5M2, 16),
        *ExactProduct(DType::kE4M3, 8), Uniform(DType::kI8, 3)}) {
    std::set<std::vector<double>> windows;
    int count = 0;
    for (uint64_t rank = 0; rank < 8; ++rank) {
      const std::vector<double> x = Draw(base, {1, 2, rank}, 0, 4096);
      for (int i = 0; i + 64 <= 4096; i += 16) {
        windows.insert(std::vector<double>(x.begin() + i, x.begin() + i + 64));
        ++count;
      }
    }
    EXPECT_EQ(static_cast<int>(windows.size()), count);
  }
}

// Chunks of large buffers lie far apart: no power of two is a period.
TEST(Random, AperiodicOverAnyDistance) {
  for (const Distribution& d :
       {*ExactSum(DType::kBF16, 8), *ExactSum(DType::kE5M2, 16),
        *ExactProduct(DType::kE4M3, 8), *ExactSum(DType::kI64, 2),
        Uniform(DType::kF32), Normal(DType::kBF16),
        ExactLinear(DType::kBF16, DType::kBF16, 512, 1024, 640)->w}) {
    std::set<std::vector<double>> windows = {Draw(d, {1, 2}, 0, 256)};
    for (int bit = 8; bit < 48; ++bit) {
      windows.insert(Draw(d, {1, 2}, int64_t{1} << bit, 256));
    }
    EXPECT_EQ(windows.size(), 41U);
  }
}

TEST(Random, ExactSumsFitAndNoRankIsAlwaysAbsent) {
  for (DType d : kAllDTypes) {
    for (int p : {1, 2, 3, 4, 5, 7, 8, 16, 300}) {
      const Distribution distribution = *ExactSum(d, p);
      constexpr int64_t kN = 700;
      std::vector<double> total(kN);
      for (int r = 0; r < p; ++r) {
        const std::vector<double> x =
            Draw(distribution, {3, 4, static_cast<uint64_t>(r)}, 0, kN);
        double seen = 0;
        for (int64_t i = 0; i < kN; ++i) {
          ASSERT_EQ(x[i], Round(d, x[i]));
          ASSERT_EQ(x[i], std::trunc(x[i]));
          if (d == DType::kU8) {
            ASSERT_GE(x[i], 0);
          }
          total[i] += std::abs(x[i]);
          seen += std::abs(x[i]);
        }
        ASSERT_GT(seen, 0) << Name(d) << " rank " << r << " of " << p;
      }
      const double limit = std::ldexp(1.0, std::min(53, SignificandBits(d)));
      for (double t : total) ASSERT_LT(t, limit) << Name(d) << " " << p;
    }
  }
}

TEST(Random, ExactAveragesAreMultiples) {
  for (DType d : kAllDTypes) {
    for (int p : {1, 2, 3, 4, 5, 7, 8, 16}) {
      const StatusOr<Distribution> distribution = ExactAverage(d, p);
      if (d == DType::kI8 || d == DType::kU8 || distribution.ok()) {
        ASSERT_TRUE(distribution.ok()) << Name(d) << " " << p;
      }
      ASSERT_TRUE(distribution.ok()) << Name(d) << " " << p;
      constexpr int64_t kN = 64;
      std::vector<double> total(kN);
      for (int r = 0; r < p; ++r) {
        const std::vector<double> x =
            Draw(*distribution, {3, 4, static_cast<uint64_t>(r)}, 0, kN);
        for (int64_t i = 0; i < kN; ++i) {
          ASSERT_EQ(std::fmod(x[i], p), 0);
          total[i] += x[i];
          // Every partial sum, in this order, is a number of the type.
          ASSERT_EQ(total[i], Round(d, total[i])) << Name(d) << " " << p;
        }
      }
      for (double t : total) ASSERT_EQ(t / p, Round(d, t / p));
    }
  }
  EXPECT_EQ(ExactAverage(DType::kE5M2, 11).status().code(),
            StatusCode::kUnsupported);
}

TEST(Random, ExactProductsOfAnySubsetAreNormal) {
  for (DType d : kAllDTypes) {
    for (int p : {1, 2, 3, 8, 16}) {
      const Distribution distribution = *ExactProduct(d, p);
      constexpr int64_t kN = 256;
      std::vector<double> largest(kN, 1);
      std::vector<double> smallest(kN, 1);
      bool varies = false;
      for (int r = 0; r < p; ++r) {
        const std::vector<double> x =
            Draw(distribution, {3, 4, static_cast<uint64_t>(r)}, 0, kN);
        for (int64_t i = 0; i < kN; ++i) {
          const double m = std::abs(x[i]);
          ASSERT_EQ(m, std::exp2(std::ilogb(m)));
          varies |= m != 1;
          (m > 1 ? largest[i] : smallest[i]) *= m;
        }
      }
      EXPECT_TRUE(varies);
      for (int64_t i = 0; i < kN; ++i) {
        ASSERT_LE(largest[i], MaxFinite(d)) << Name(d) << " " << p;
        if (IsFloat(d)) {
          ASSERT_GE(smallest[i],
                    std::ldexp(SmallestSubnormal(d), SignificandBits(d) - 1));
        } else {
          ASSERT_EQ(smallest[i], 1);
        }
      }
    }
  }
}

TEST(Random, ExactLinearSumsFitInBothPasses) {
  constexpr int64_t kTokens = 300, kIn = 700, kOut = 520;
  for (DType narrow : {DType::kF32, DType::kBF16, DType::kF16}) {
    const ExactLinearInputs d =
        *ExactLinear(DType::kBF16, narrow, kTokens, kIn, kOut);
    const auto x = Draw(d.x, {1, 1}, 0, kTokens * kIn);
    const auto w = Draw(d.w, {1, 2}, 0, kOut * kIn);
    const auto dy = Draw(d.dy, {1, 4}, 0, kTokens * kOut);
    const double limit = std::exp2(SignificandBits(narrow));
    const auto most = [&](int rows, int columns, int terms, auto a, auto b) {
      double largest = 0;
      double smallest = HUGE_VAL;
      for (int i = 0; i < rows; i += 7) {
        for (int j = 0; j < columns; j += 11) {
          double sum = 0;
          for (int k = 0; k < terms; ++k) sum += std::abs(a(i, k) * b(k, j));
          largest = std::max(largest, sum);
          smallest = std::min(smallest, sum);
        }
      }
      EXPECT_LT(largest, limit - 1) << Name(narrow);
      EXPECT_GT(largest, 0) << Name(narrow);
      return smallest;
    };
    EXPECT_GT(
        most(
            kTokens, kOut, kIn, [&](int i, int k) { return x[i * kIn + k]; },
            [&](int k, int j) { return w[j * kIn + k]; }),
        0);
    most(
        kTokens, kIn, kOut, [&](int i, int k) { return dy[i * kOut + k]; },
        [&](int k, int j) { return w[k * kIn + j]; });
    EXPECT_GT(
        most(
            kOut, kIn, kTokens, [&](int i, int k) { return dy[k * kOut + i]; },
            [&](int k, int j) { return x[k * kIn + j]; }),
        0);
  }
}

TEST(Random, ShardScalesDiffer) {
  std::set<double> scales;
  for (uint64_t r = 0; r < 1000; ++r) {
    const double s = ShardScale({1, 2, r});
    EXPECT_GE(s, 0.5);
    EXPECT_LT(s, 2);
    scales.insert(std::round(s * 1e6));
  }
  EXPECT_EQ(scales.size(), 1000u);
}

}  // namespace
}  // namespace shardproof
