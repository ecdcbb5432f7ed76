#include "reference/dtype.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <vector>

namespace shardproof {
namespace {

constexpr double kInf = std::numeric_limits<double>::infinity();

// The oracle: the format as its standard writes it, and rounding by search among
// all values. Shares nothing with the code under test.
struct Format {
  DType dtype;
  int exponent_bits;
  int mantissa_bits;
  bool infinities;
};

constexpr Format kFormats[] = {{DType::kBF16, 8, 7, true},
                               {DType::kF16, 5, 10, true},
                               {DType::kE4M3, 4, 3, false},
                               {DType::kE5M2, 5, 2, true}};

double OracleDecode(const Format& f, uint32_t bits) {
  const uint32_t mantissa = bits & ((1u << f.mantissa_bits) - 1);
  const int field = static_cast<int>((bits >> f.mantissa_bits) &
                                     ((1u << f.exponent_bits) - 1));
  const bool negative = (bits >> (f.mantissa_bits + f.exponent_bits)) != 0;
  const int top = (1 << f.exponent_bits) - 1;
  const int bias = top / 2;
  double v;
  if (f.infinities && field == top) {
    v = mantissa == 0 ? kInf : std::nan("");
  } else if (!f.infinities && field == top &&
             mantissa == (1u << f.mantissa_bits) - 1) {
    v = std::nan("");
  } else if (field == 0) {
    v = std::ldexp(mantissa, 1 - bias - f.mantissa_bits);
  } else {
    v = std::ldexp(mantissa + (1u << f.mantissa_bits),
                   field - bias - f.mantissa_bits);
  }
  return negative ? -v : v;
}

// The finite magnitudes in increasing order: index = bits.
std::vector<double> Magnitudes(const Format& f) {
  std::vector<double> values;
  for (uint32_t bits = 0;; ++bits) {
    const double v = OracleDecode(f, bits);
    if (!std::isfinite(v)) return values;
    values.push_back(v);
  }
}

uint32_t OracleEncode(const Format& f, const std::vector<double>& magnitudes,
                      double x) {
  const uint32_t overflow = static_cast<uint32_t>(magnitudes.size());
  const double m = std::abs(x);
  uint32_t low = 0;
  uint32_t high = overflow;  // stands for the next value, were there one
  while (high - low > 1) {
    const uint32_t middle = (low + high) / 2;
    (magnitudes[middle] <= m ? low : high) = middle;
  }
  const double below = magnitudes[low];
  const double step = low > 0 && high == overflow ? below - magnitudes[low - 1]
                                                  : magnitudes[high] - below;
  const double half_way = below + step / 2;
  const uint32_t bits =
      m > half_way || (m == half_way && low % 2 == 1) ? high : low;
  return bits |
         (std::signbit(x) ? 1u << (f.exponent_bits + f.mantissa_bits) : 0);
}

template <typename T>
double Decoded(uint32_t bits) {
  return static_cast<double>(T::FromBits(static_cast<decltype(T::bits)>(bits)));
}

class NarrowTest : public testing::TestWithParam<Format> {};

TEST_P(NarrowTest, EveryValueDecodesAndComesBack) {
  const Format f = GetParam();
  Visit(f.dtype, [&]<typename T>(TypeTag<T>) {
    if constexpr (std::is_class_v<T>) {
      const uint32_t count = 1u << (8 * sizeof(T));
      for (uint32_t bits = 0; bits < count; ++bits) {
        const double expected = OracleDecode(f, bits);
        const double got = Decoded<T>(bits);
        if (std::isnan(expected)) {
          ASSERT_TRUE(std::isnan(got)) << bits;
          ASSERT_TRUE(std::isnan(static_cast<double>(T(got)))) << bits;
          continue;
        }
        ASSERT_EQ(got, expected) << bits;
        ASSERT_EQ(std::signbit(got), std::signbit(expected)) << bits;
        ASSERT_EQ(T(got).bits, bits);
        ASSERT_EQ(T(static_cast<float>(got)).bits, bits);
      }
    }
  });
}

// Each value, each midpoint, and the neighbours of each midpoint in double and in float.
TEST_P(NarrowTest, RoundsToNearestEvenOnce) {
  const Format f = GetParam();
  const std::vector<double> values = Magnitudes(f);
  Visit(f.dtype, [&]<typename T>(TypeTag<T>) {
    if constexpr (std::is_class_v<T>) {
      const auto check = [&](double x) {
        for (double v : {x, -x}) {
          ASSERT_EQ(T(v).bits, OracleEncode(f, values, v)) << v;
          const auto single = static_cast<float>(v);
          ASSERT_EQ(T(single).bits, OracleEncode(f, values, single)) << v;
        }
      };
      for (size_t i = 0; i < values.size(); ++i) {
        const double step = i + 1 < values.size() ? values[i + 1] - values[i]
                                                  : values[i] - values[i - 1];
        const double middle = values[i] + step / 2;
        for (double x : {values[i], middle, values[i] + step / 4,
                         values[i] + 3 * step / 4}) {
          check(x);
          check(std::nextafter(x, kInf));
          check(std::nextafter(x, 0.0));
          const auto single = static_cast<float>(x);
          check(std::nextafterf(single, HUGE_VALF));
          check(std::nextafterf(single, 0.0f));
        }
      }
      for (double x : {1e300, 0x1p128, 0x1.fffffep127, 5e-324, 1e-310, 1e-46}) {
        check(x);
      }
      ASSERT_EQ(T(kInf).bits, OracleEncode(f, values, 1e300));
    }
  });
}

INSTANTIATE_TEST_SUITE_P(DType, NarrowTest, testing::ValuesIn(kFormats),
                         [](const auto& i) {
                           return std::string(Name(i.param.dtype));
                         });

TEST(DType, TableAgreesWithTheFormats) {
  for (const Format& f : kFormats) {
    const std::vector<double> values = Magnitudes(f);
    EXPECT_EQ(MaxFinite(f.dtype), values.back());
    EXPECT_EQ(SmallestSubnormal(f.dtype), values[1]);
    EXPECT_EQ(SignificandBits(f.dtype), f.mantissa_bits + 1);
    EXPECT_EQ(UnitRoundoff(f.dtype), std::ldexp(1.0, -f.mantissa_bits - 1));
    EXPECT_EQ(SizeOf(f.dtype) * 8, 1 + f.exponent_bits + f.mantissa_bits);
  }
  EXPECT_EQ(UnitRoundoff(DType::kF32), 0x1p-24);
  EXPECT_EQ(UnitRoundoff(DType::kF64), 0x1p-53);
  EXPECT_EQ(SmallestSubnormal(DType::kF32),
            std::numeric_limits<float>::denorm_min());
  EXPECT_EQ(MaxFinite(DType::kF32), std::numeric_limits<float>::max());
  for (DType d : kAllDTypes) {
    EXPECT_EQ(Info(d).dtype, d);
    EXPECT_EQ(*ParseDType(Name(d)), d);
    EXPECT_EQ(Visit(d, []<typename T>(TypeTag<T>) { return DTypeOf<T>(); }), d);
    EXPECT_EQ(static_cast<size_t>(SizeOf(d)),
              Visit(d, []<typename T>(TypeTag<T>) { return sizeof(T); }));
  }
}

TEST(DType, OverflowIsWhatTheHeaderSays) {
  EXPECT_TRUE(std::isnan(static_cast<double>(Float8E4M3(480.0))));
  EXPECT_EQ(static_cast<double>(Float8E4M3(464.0)), 448);
  EXPECT_EQ(static_cast<double>(Float8E5M2(61440.0)), kInf);
  EXPECT_EQ(static_cast<double>(Float8E5M2(61439.0)), 57344);
  EXPECT_EQ(static_cast<double>(Float16(65520.0)), kInf);
  EXPECT_EQ(static_cast<double>(BFloat16(-1e39)), -kInf);
}

// 1 + 2^-8 + 2^-30 is above a bf16 midpoint; by way of float it would be the midpoint itself and round down.
TEST(DType, FromDoubleRoundsOnce) {
  EXPECT_EQ(static_cast<double>(BFloat16(1 + 0x1p-8 + 0x1p-30)), 1 + 0x1p-7);
  EXPECT_EQ(Round(DType::kF16, 1 + 0x1p-11 + 0x1p-50), 1 + 0x1p-10);
}

TEST(DType, BulkAgreesWithSingle) {
  const std::vector<double> values = {0.0,  -0.0, 1.0 / 3, -2.5,  2.5,
                                      3.5,  1e9,  -1e9,    1e-40, 300,
                                      kInf, 127,  -128,    0.5,   17};
  const auto n = static_cast<int64_t>(values.size());
  for (DType d : kAllDTypes) {
    std::vector<char> stored(values.size() * 8);
    std::vector<double> back(values.size());
    std::vector<double> rounded = values;
    FromDouble(d, values.data(), n, stored.data());
    ToDouble(d, stored.data(), n, back.data());
    RoundAll(d, rounded.data(), n);
    for (size_t i = 0; i < values.size(); ++i) {
      const double expected = Round(d, values[i]);
      if (std::isnan(expected)) {
        EXPECT_TRUE(std::isnan(back[i]));
        continue;
      }
      EXPECT_EQ(back[i], expected) << Name(d) << " " << values[i];
      EXPECT_EQ(rounded[i], expected) << Name(d) << " " << values[i];
      if (IsFloat(d)) {
        EXPECT_EQ(std::signbit(back[i]), std::signbit(values[i]));
      }
    }
  }
}

TEST(DType, IntegersRoundToEvenAndWrap) {
  EXPECT_EQ(Round(DType::kI8, 2.5), 2);
  EXPECT_EQ(Round(DType::kI8, 3.5), 4);
  EXPECT_EQ(Round(DType::kI8, 128), -128);
  EXPECT_EQ(Round(DType::kU8, -1), 255);
  EXPECT_EQ(Round(DType::kI32, std::nan("")), 0);
  for (int i = -128; i < 128; ++i) EXPECT_EQ(Round(DType::kI8, i), i);
  for (int i = 0; i < 256; ++i) EXPECT_EQ(Round(DType::kU8, i), i);
}

TEST(DType, ParseNamesTheKnown) {
  EXPECT_EQ(*ParseDType("bfloat16"), DType::kBF16);
  const Status error = ParseDType("f17").status();
  EXPECT_EQ(error.code(), StatusCode::kInvalidArgument);
  EXPECT_NE(error.message().find("e4m3"), std::string::npos);
}

}  // namespace
}  // namespace shardproof
