// Reduce against a loop over reference/dtype.h, bit by bit, on every instruction set that this machine has.
#include "collectives/kernels/reduce.h"

#include <gtest/gtest.h>

#include <array>
#include <bit>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <random>
#include <string>
#include <tuple>
#include <type_traits>
#include <vector>

#include "collectives/kernels/copy.h"
#include "collectives/kernels/targets.h"
#include "hwy/targets.h"

namespace shardproof::kernels {
namespace {

constexpr std::array<Walk, 4> kWalks = {
    Walk{.side_by_side = false}, Walk{.streaming = true, .side_by_side = false},
    Walk{.streaming = true, .side_by_side = true},
    Walk{.backward = true, .side_by_side = false}};

// The type in which T is added.
template <typename T>
struct AccumulatorOf {
  using type = std::conditional_t<std::is_arithmetic_v<T>, T, float>;
};
template <typename T>
using Acc = typename AccumulatorOf<T>::type;

template <typename T>
Acc<T> Multiply(Acc<T> a, Acc<T> b) {
  if constexpr (std::is_floating_point_v<Acc<T>>) return a * b;
  return static_cast<Acc<T>>(static_cast<uint64_t>(a) *
                             static_cast<uint64_t>(b));
}

// IEEE 754-2019 minimum and maximum.
template <typename T>
Acc<T> Extremum(bool max, Acc<T> a, Acc<T> b) {
  if constexpr (std::is_floating_point_v<Acc<T>>) {
    if (std::isnan(a) || std::isnan(b)) return std::isnan(a) ? a : b;
    if (a == b) return std::signbit(a) == max ? b : a;
  }
  return (max ? a > b : a < b) ? a : b;
}

template <typename T>
Acc<T> CombineScalar(ReduceOp op, Acc<T> a, Acc<T> b) {
  switch (op) {
    case ReduceOp::kProd:
      return Multiply<T>(a, b);
    case ReduceOp::kMin:
      return Extremum<T>(false, a, b);
    case ReduceOp::kMax:
      return Extremum<T>(true, a, b);
    default:
      if constexpr (std::is_floating_point_v<Acc<T>>) return a + b;
      return static_cast<Acc<T>>(static_cast<uint64_t>(a) +
                                 static_cast<uint64_t>(b));
  }
}

template <typename T>
T ExpectedElement(ReduceOp op, const std::vector<const void*>& sources,
                  size_t i, const ReduceOptions& options) {
  const auto at = [&](size_t s) {
    T value;
    std::memcpy(&value, static_cast<const char*>(sources[s]) + i * sizeof(T),
                sizeof(T));
    return value;
  };
  if (sources.size() == 1 && options.scales.empty() && options.divisor == 1)
    return at(0);
  const auto scaled = [&](size_t s) {
    const Acc<T> value = static_cast<Acc<T>>(at(s));
    if (options.scales.empty()) return value;
    if constexpr (std::is_floating_point_v<Acc<T>>)
      return value * static_cast<Acc<T>>(options.scales[s]);
    return Multiply<T>(
        value, static_cast<Acc<T>>(static_cast<int64_t>(options.scales[s])));
  };
  Acc<T> sum = scaled(0);
  for (size_t s = 1; s < sources.size(); ++s)
    sum = CombineScalar<T>(op, sum, scaled(s));
  if (options.divisor != 1)
    sum = static_cast<Acc<T>>(sum / static_cast<Acc<T>>(options.divisor));
  return static_cast<T>(sum);
}

// Bits are compared; of a NaN that an addition made, only that it is the NaN of
// the format: the sum of two NaNs may have the sign and payload of either.
template <typename T>
bool SameValue(const void* got, T expected) {
  T value;
  std::memcpy(&value, got, sizeof(T));
  if constexpr (std::is_floating_point_v<T>) {
    if (std::isnan(value) && std::isnan(expected)) return true;
  } else if constexpr (!std::is_integral_v<T>) {
    using Format = typename T::Format;
    if ((value.bits | Format::kSignBit) == (expected.bits | Format::kSignBit) &&
        (value.bits & (Format::kSignBit - 1)) == Format::kNan) {
      return true;
    }
  }
  // NOLINTNEXTLINE(bugprone-suspicious-memory-comparison): bits are meant.
  return std::memcmp(&value, &expected, sizeof(T)) == 0;
}

// Any bits at all, and often the numbers at the edges of a format: zeros, subnormals, largest, infinities, NaN.
template <typename T>
void FillRandom(std::mt19937_64& random, void* data, size_t count) {
  for (size_t i = 0; i < count; ++i) {
    T value;
    const uint64_t bits = random();
    std::memcpy(&value, &bits, sizeof(T));
    if constexpr (!std::is_integral_v<T>) {
      const int choice = static_cast<int>(random() % 8);
      const float sign = random() % 2 ? 1.0f : -1.0f;
      if (choice == 0) value = static_cast<T>(sign * 0.0f);
      if (choice == 1)
        value = static_cast<T>(
            static_cast<float>(sign * SmallestSubnormal(DTypeOf<T>())));
      if (choice == 2) value = static_cast<T>(sign * MaxFinite(DTypeOf<T>()));
      if (choice == 3)
        value = static_cast<T>(sign * static_cast<float>(random() % 1000) / 64);
    }
    std::memcpy(static_cast<char*>(data) + i * sizeof(T), &value, sizeof(T));
  }
}

// An array at any distance from an alignment that its type allows, between guards.
class Array {
 public:
  Array(size_t element, size_t count, size_t misalignment)
      : bytes_(element * (count + misalignment) + 2 * kGuard + 64, kPoison),
        size_(element * count) {
    const uintptr_t base = reinterpret_cast<uintptr_t>(bytes_.data()) + kGuard;
    data_ = bytes_.data() + (-base & 63) + kGuard + element * misalignment;
  }
  void* data() { return data_; }
  bool GuardsIntact() const {
    for (const char* p = bytes_.data(); p < data_; ++p) {
      if (*p != kPoison) return false;
    }
    for (const char* p = data_ + size_; p < bytes_.data() + bytes_.size();
         ++p) {
      if (*p != kPoison) return false;
    }
    return true;
  }

 private:
  static constexpr size_t kGuard = 64;
  static constexpr char kPoison = 0x5a;
  std::vector<char> bytes_;
  size_t size_;
  char* data_;
};

template <typename T>
void Check(ReduceOp op, size_t source_count, size_t destination_count,
           size_t count, bool in_place, const ReduceOptions& options,
           std::mt19937_64& random) {
  std::vector<Array> arrays;
  arrays.reserve(source_count + destination_count);
  const size_t shared_misalignment = random() % 64;
  const bool agree = random() % 2 == 0;
  const auto add = [&] {
    arrays.emplace_back(sizeof(T), count,
                        agree ? shared_misalignment : random() % 64);
    return arrays.back().data();
  };
  std::vector<const void*> sources;
  std::vector<void*> destinations;
  for (size_t s = 0; s < source_count; ++s) {
    void* data = add();
    FillRandom<T>(random, data, count);
    sources.push_back(data);
    if (in_place && destinations.size() < destination_count)
      destinations.push_back(data);
  }
  while (destinations.size() < destination_count) destinations.push_back(add());
  std::vector<T> expected(count);
  for (size_t i = 0; i < count; ++i)
    expected[i] = ExpectedElement<T>(op, sources, i, options);

  Reduce(DTypeOf<T>(), op, sources, static_cast<int64_t>(count), destinations,
         options);

  for (size_t t = 0; t < destinations.size(); ++t) {
    for (size_t i = 0; i < count; ++i) {
      ASSERT_TRUE(SameValue<T>(
          static_cast<const char*>(destinations[t]) + i * sizeof(T),
          expected[i]))
          << Name(DTypeOf<T>()) << " " << Name(op) << ", " << source_count
          << " sources, element " << i << " of " << count << " in destination "
          << t << (options.walk.streaming ? ", streaming" : "")
          << (options.walk.backward ? ", backward" : "")
          << (in_place ? ", in place" : "");
    }
  }
  for (const Array& array : arrays)
    ASSERT_TRUE(array.GuardsIntact()) << "count " << count;
}

using Parameters = std::tuple<int64_t, DType>;

class ReduceTest : public testing::TestWithParam<Parameters> {
 protected:
  void SetUp() override {
    const int64_t target = std::get<0>(GetParam());
    hwy::SetSupportedTargetsForTest(target);
    hwy::GetChosenTarget().Update(hwy::SupportedTargets());
  }
  void TearDown() override {
    hwy::SetSupportedTargetsForTest(0);
    hwy::GetChosenTarget().Update(hwy::SupportedTargets());
  }
  DType dtype() const { return std::get<1>(GetParam()); }
  Walk RandomWalk() { return kWalks[random_() % kWalks.size()]; }
  std::mt19937_64 random_{20240607};
};

class ReduceOrderTest : public ReduceTest {};
class ReduceNarrowTest : public ReduceTest {};

TEST_P(ReduceTest, MatchesTheScalarLoopAtEveryRemainder) {
  Visit(dtype(), [&]<typename T>(TypeTag<T>) {
    for (ReduceOp op :
         {ReduceOp::kSum, ReduceOp::kProd, ReduceOp::kMin, ReduceOp::kMax}) {
      // Two blocks of the widest vectors, and everything that can remain.
      for (size_t count = 0; count <= 2 * 256 + 2 * 64 / sizeof(T) + 1;
           ++count) {
        const size_t sources = 1 + random_() % 4;
        const size_t destinations = 1 + random_() % 3;
        const ReduceOptions options = {.walk = RandomWalk()};
        ASSERT_NO_FATAL_FAILURE(Check<T>(op, sources, destinations, count,
                                         random_() % 2 == 0, options, random_));
      }
    }
  });
}

TEST_P(ReduceTest, MatchesTheScalarLoopOnPairs) {
  Visit(dtype(), [&]<typename T>(TypeTag<T>) {
    for (ReduceOp op : kAllReduceOps) {
      for (size_t destinations : {1, 2}) {
        for (Walk walk : kWalks) {
          for (bool in_place : {false, true}) {
            for (int trial = 0; trial < 20; ++trial) {
              ASSERT_NO_FATAL_FAILURE(Check<T>(op, 2, destinations,
                                               random_() % 3000, in_place,
                                               {.walk = walk}, random_));
            }
          }
        }
      }
    }
  });
}

// So long that the loops ask for lines ahead, in both directions.
TEST_P(ReduceTest, MatchesTheScalarLoopOnLongArrays) {
  Visit(dtype(), [&]<typename T>(TypeTag<T>) {
    for (size_t sources : {2, 3}) {
      for (Walk walk : kWalks) {
        const size_t count = 70000 / sizeof(T) + random_() % 1000;
        ASSERT_NO_FATAL_FAILURE(Check<T>(ReduceOp::kSum, sources, 2, count,
                                         random_() % 2 == 0, {.walk = walk},
                                         random_));
      }
    }
  });
}

TEST_P(ReduceTest, ScalesEachSourceAndDivides) {
  const std::vector<double> scales = {2, -3, 0.5, 7, 1.0 / 3};
  Visit(dtype(), [&]<typename T>(TypeTag<T>) {
    for (size_t sources : {1, 2, 3, 5}) {
      for (int64_t divisor : {1, 3, 8}) {
        for (bool scaled : {false, true}) {
          for (int trial = 0; trial < 10; ++trial) {
            const ReduceOptions options = {
                .scales =
                    std::span<const double>(scales).first(scaled ? sources : 0),
                .divisor = divisor,
                .walk = RandomWalk()};
            ASSERT_NO_FATAL_FAILURE(Check<T>(ReduceOp::kSum, sources,
                                             1 + random_() % 3, random_() % 700,
                                             trial % 3 == 0, options, random_));
          }
        }
      }
    }
  });
}

TEST_P(ReduceOrderTest, FoldsInTheOrderGiven) {
  Visit(dtype(), [&]<typename T>(TypeTag<T>) {
    // 2^k + 1 - 2^k: the 1 is lost or kept by order, with an accumulator of 24 or 53 bits.
    if constexpr (!std::is_integral_v<T>) {
      const T big(static_cast<float>(sizeof(T) == 8 ? 0x1p60 : 0x1p15)),
          minus(-static_cast<float>(big));
      const T small(static_cast<float>(sizeof(T) == 1 ? 0x1p-9 : 0x1p-10));
      const std::vector<T> a(100, big), b(100, small), c(100, minus);
      std::vector<T> y(100);
      void* const destinations[] = {y.data()};
      const void* const lost[] = {a.data(), b.data(), c.data()};
      Reduce(dtype(), ReduceOp::kSum, lost, 100, destinations);
      EXPECT_TRUE(SameValue<T>(&y[99], T(0.0f)));
      const void* const kept[] = {a.data(), c.data(), b.data()};
      Reduce(dtype(), ReduceOp::kSum, kept, 100, destinations);
      EXPECT_TRUE(SameValue<T>(&y[99], small));
    }
  });
}

// Every value of an 8- or 16-bit type through Load and Store, and every float near a rounding boundary through Store.
TEST_P(ReduceNarrowTest, ConvertsEveryValue) {
  Visit(dtype(), [&]<typename T>(TypeTag<T>) {
    if constexpr (!std::is_arithmetic_v<T>) {
      const size_t count = size_t{1} << (8 * sizeof(T));
      std::vector<T> values(count), results(count);
      for (size_t i = 0; i < count; ++i)
        values[i].bits = static_cast<decltype(T::bits)>(i);
      const void* const sources[] = {values.data()};
      void* const destinations[] = {results.data()};
      // Products with these visit all exponents, ties among them: 1.5 and 1.25 leave halves behind.
      for (float factor : {1.0f, 1.5f, 1.25f, 0.75f, 0x1p-9f, 0x1.8p-12f,
                           0x1p-30f, 0x1.4p8f, 0x1p100f, -3.0f}) {
        const double scales[] = {factor};
        Reduce(dtype(), ReduceOp::kPremulSum, sources,
               static_cast<int64_t>(count), destinations, {.scales = scales});
        for (size_t i = 0; i < count; ++i) {
          const T expected(static_cast<float>(values[i]) * factor);
          ASSERT_EQ(results[i].bits, expected.bits)
              << "value " << i << " times " << factor;
        }
      }
    }
  });
}

TEST_P(ReduceTest, ReduceIntoAccumulates) {
  Visit(dtype(), [&]<typename T>(TypeTag<T>) {
    const size_t count = 333;
    std::vector<T> accumulator(count), source(count), expected(count);
    FillRandom<T>(random_, accumulator.data(), count);
    FillRandom<T>(random_, source.data(), count);
    const std::vector<const void*> sources = {accumulator.data(),
                                              source.data()};
    for (size_t i = 0; i < count; ++i)
      expected[i] = ExpectedElement<T>(ReduceOp::kSum, sources, i, {});
    ReduceInto(dtype(), ReduceOp::kSum, accumulator.data(), source.data(),
               static_cast<int64_t>(count));
    for (size_t i = 0; i < count; ++i)
      ASSERT_TRUE(SameValue<T>(&accumulator[i], expected[i])) << i;
  });
}

std::string TestName(const testing::TestParamInfo<Parameters>& info) {
  return std::string(hwy::TargetName(std::get<0>(info.param))) + "_" +
         std::string(Name(std::get<1>(info.param)));
}

std::vector<int64_t> Targets() {
  std::vector<int64_t> targets;
  const int64_t usable = hwy::SupportedTargets() & HWY_TARGETS;
  for (int bit = 0; bit < 63; ++bit) {
    if (usable & (int64_t{1} << bit)) targets.push_back(int64_t{1} << bit);
  }
  return targets;
}

using testing::Combine;
using testing::Values;
using testing::ValuesIn;
INSTANTIATE_TEST_SUITE_P(All, ReduceTest,
                         Combine(ValuesIn(Targets()), ValuesIn(kAllDTypes)),
                         TestName);
// Integers add in any order, and f32 holds any short sum of e4m3.
INSTANTIATE_TEST_SUITE_P(All, ReduceOrderTest,
                         Combine(ValuesIn(Targets()),
                                 Values(DType::kF64, DType::kF32, DType::kBF16,
                                        DType::kF16, DType::kE5M2)),
                         TestName);
INSTANTIATE_TEST_SUITE_P(All, ReduceNarrowTest,
                         Combine(ValuesIn(Targets()),
                                 Values(DType::kBF16, DType::kF16, DType::kE4M3,
                                        DType::kE5M2)),
                         TestName);

TEST(CopyTest, CopiesEveryLengthAndAlignment) {
  std::mt19937_64 random(7);
  for (size_t bytes = 0; bytes < 1200; ++bytes) {
    for (Walk walk : kWalks) {
      Array source(1, bytes, random() % 64), first(1, bytes, random() % 64),
          second(1, bytes, random() % 64);
      FillRandom<uint8_t>(random, source.data(), bytes);
      Copy(first.data(), source.data(), bytes, walk);
      ASSERT_EQ(std::memcmp(first.data(), source.data(), bytes), 0) << bytes;
      void* const destinations[] = {second.data(), source.data()};
      CopyToAll(destinations, source.data(), bytes, walk);
      ASSERT_EQ(std::memcmp(second.data(), source.data(), bytes), 0) << bytes;
      ASSERT_TRUE(first.GuardsIntact() && second.GuardsIntact() &&
                  source.GuardsIntact())
          << bytes;
    }
  }
}

TEST(CopyTest, CopiesToNobody) {
  const std::vector<char> source(100);
  for (Walk walk : kWalks) CopyToAll({}, source.data(), source.size(), walk);
}

// Several pieces, and the pages that a streaming copy takes side by side; to
// destinations that can be stored to at once, the source among them, and to
// others.
TEST(CopyTest, CopiesMoreThanAPiece) {
  std::mt19937_64 random(8);
  for (size_t bytes : {16384, 16385, 32767, 100001, 200001}) {
    for (size_t apart : {0, 5}) {
      for (Walk walk : kWalks) {
        Array source(1, bytes, 3), first(1, bytes, 3),
            second(1, bytes, 3 + apart), third(1, bytes, 7);
        FillRandom<uint8_t>(random, source.data(), bytes);
        std::vector<uint8_t> sent(bytes);
        std::memcpy(sent.data(), source.data(), bytes);
        void* const destinations[] = {first.data(), source.data(),
                                      second.data()};
        CopyToAll(destinations, source.data(), bytes, walk);
        EXPECT_EQ(std::memcmp(source.data(), sent.data(), bytes), 0) << bytes;
        EXPECT_EQ(std::memcmp(first.data(), sent.data(), bytes), 0) << bytes;
        EXPECT_EQ(std::memcmp(second.data(), sent.data(), bytes), 0) << bytes;
        Copy(third.data(), source.data(), bytes, walk);
        EXPECT_EQ(std::memcmp(third.data(), sent.data(), bytes), 0) << bytes;
        EXPECT_TRUE(first.GuardsIntact() && second.GuardsIntact() &&
                    third.GuardsIntact() && source.GuardsIntact())
            << bytes;
      }
    }
  }
}

}  // namespace
}  // namespace shardproof::kernels
