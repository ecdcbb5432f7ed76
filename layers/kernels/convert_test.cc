// Widen and Narrow, bit by bit against reference/dtype.h.
#include "layers/kernels/convert.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstdint>
#include <cstring>
#include <vector>

#include "collectives/kernels/targets.h"
#include "layers/kernels/kernel_testing.h"

namespace shardproof::kernels {
namespace {

// Every 16-bit pattern, exactly.
template <typename T>
void ExpectWidensAll(DType dtype) {
  std::vector<T> source(1 << 16);
  for (uint32_t bits = 0; bits < source.size(); ++bits) {
    const auto pattern = static_cast<uint16_t>(bits);
    std::memcpy(static_cast<void*>(&source[bits]), &pattern, sizeof(pattern));
  }
  std::vector<float> wide(source.size());
  Widen(dtype, source.data(), static_cast<int64_t>(source.size()), wide.data());
  for (size_t i = 0; i < source.size(); ++i) {
    const auto want = static_cast<double>(source[i]);
    if (std::isnan(want)) {
      ASSERT_TRUE(std::isnan(wide[i])) << "pattern " << i;
    } else {
      ASSERT_EQ(static_cast<double>(wide[i]), want) << "pattern " << i;
      ASSERT_EQ(std::signbit(wide[i]), std::signbit(want)) << "pattern " << i;
    }
  }
}

TEST(ConvertTest, WidensEveryPattern) {
  for (const int64_t target : UsableTargets()) {
    const OnlyTarget only(target);
    ExpectWidensAll<BFloat16>(DType::kBF16);
    ExpectWidensAll<Float16>(DType::kF16);
  }
}

// Rounded once to nearest even, after the addend; lengths that end within a
// vector.
TEST(ConvertTest, NarrowsToNearestEven) {
  for (const int64_t target : UsableTargets()) {
    const OnlyTarget only(target);
    for (const DType dtype : {DType::kBF16, DType::kF16, DType::kF32}) {
      for (const int64_t n : {0, 1, 15, 16, 17, 1003}) {
        const Tensor source =
            Filled(Uniform(DType::kF32, 100), Shape{n}, "source");
        const Tensor addend = Filled(Uniform(dtype), Shape{n}, "addend");
        const std::vector<double> s = Doubles(source), a = Doubles(addend);
        Tensor plain(dtype, {n}), sum(dtype, {n});
        Narrow(dtype, source.data<float>(), nullptr, n, plain.raw());
        Narrow(dtype, source.data<float>(), addend.raw(), n, sum.raw());
        const std::vector<double> p = Doubles(plain), q = Doubles(sum);
        for (size_t i = 0; i < s.size(); ++i) {
          ASSERT_EQ(p[i], Round(dtype, s[i])) << Name(dtype) << " " << i;
          ASSERT_EQ(q[i], Round(dtype, Round(DType::kF32, s[i] + a[i])))
              << Name(dtype) << " " << i;
        }
      }
    }
  }
}

}  // namespace
}  // namespace shardproof::kernels
