// Masks against the published vectors and the scalar reference, on every
// instruction set that this machine has.
#include "layers/kernels/dropout.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <vector>

#include "collectives/kernels/targets.h"
#include "layers/kernels/kernel_testing.h"
#include "reference/dropout.h"

namespace shardproof {
namespace {

constexpr DType kTypes[] = {DType::kF32, DType::kF64, DType::kBF16,
                            DType::kF16};

class DropoutKernelTest : public testing::TestWithParam<int64_t> {};

using Four = std::array<uint32_t, 4>;

// kat_vectors of Random123, alone and as the last of several counters.
TEST_P(DropoutKernelTest, PublishedVectors) {
  const OnlyTarget only(GetParam());
  const auto expect = [](uint64_t seed, uint64_t call, uint64_t counter,
                         const Four& want) {
    for (uint64_t before = 0; before < 20; ++before) {
      std::vector<uint32_t> words(4 * (before + 1) + 1, 17);
      kernels::PhiloxWords(seed, call, counter - before,
                           static_cast<int64_t>(before) + 1, words.data());
      const uint32_t* last = words.data() + 4 * before;
      EXPECT_EQ((Four{last[0], last[1], last[2], last[3]}), want) << before;
      EXPECT_EQ(words.back(), 17U) << "written beyond the end";
    }
  };
  expect(0, 0, 0, {0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8});
  const uint64_t ones = ~uint64_t{0};
  expect(ones, ones, ones, {0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd});
  expect(0x299f31d0a4093822, 0x0370734413198a2e, 0x85a308d3243f6a88,
         {0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1});
}

// Rows that begin anywhere in a counter, lengths around vectors and blocks, and
// indices across 2^34, where the lower half of the counter ends.
TEST_P(DropoutKernelTest, MatchesTheReference) {
  const OnlyTarget only(GetParam());
  double worst = 0;
  for (const DType dtype : kTypes) {
    for (const double p : {0.0, 0.1, 0.5, 1 - 0x1p-32}) {
      for (const int64_t columns : {0, 1, 7, 33, 1027, 2050}) {
        for (const uint64_t first : {0ULL, 5ULL, (1ULL << 34) - 21}) {
          for (const int64_t stride : {columns, columns + 6}) {
            SCOPED_TRACE(fmt::format("[3, {}] of {}, p {}, from {}, stride {}",
                                     columns, Name(dtype), p, first, stride));
            const Tensor x = Filled(Uniform(dtype, 3), {3, columns}, "x");
            Tensor y(dtype, {3, columns});
            ASSERT_TRUE(Dropout(Stream::Inline(), {.dtype = dtype,
                                                   .rows = 3,
                                                   .columns = columns,
                                                   .first = first,
                                                   .row_stride = stride,
                                                   .probability = p,
                                                   .seed = 0x123456789,
                                                   .call = 0xabcdef0123,
                                                   .x = x.raw(),
                                                   .y = y.raw()})
                            .ok());
            const DropoutMask mask(p, 0x123456789, 0xabcdef0123);
            const std::vector<double> in = Doubles(x), out = Doubles(y);
            for (size_t k = 0; k < in.size(); ++k) {
              const auto row = static_cast<int64_t>(k) / columns;
              const auto column = static_cast<int64_t>(k) % columns;
              const Bounded want =
                  mask.Apply({in[k]},
                             first + static_cast<uint64_t>(row * stride) +
                                 static_cast<uint64_t>(column),
                             Arithmetic::For(dtype));
              // Half an f16 overflows at the largest scale.
              if (std::isinf(out[k]) && dtype == DType::kF16) continue;
              const double e = std::abs(out[k] - want.value);
              ASSERT_LE(e, want.worst) << "element " << k << " is " << out[k];
              if (want.worst > 0) worst = std::max(worst, e / want.worst);
            }
          }
        }
      }
    }
  }
  std::printf("largest e/worst: %.3f\n", worst);
}

TEST_P(DropoutKernelTest, WorksInPlaceAndDropsNan) {
  const OnlyTarget only(GetParam());
  std::vector<float> x(100, std::numeric_limits<float>::quiet_NaN());
  ASSERT_TRUE(Dropout(Stream::Inline(), {.rows = 1,
                                         .columns = 100,
                                         .probability = 0.5,
                                         .seed = 1,
                                         .x = x.data(),
                                         .y = x.data()})
                  .ok());
  const DropoutMask mask(0.5, 1, 0);
  for (uint64_t i = 0; i < 100; ++i) {
    if (mask.Keeps(i)) {
      EXPECT_TRUE(std::isnan(x[i])) << i;
    } else {
      EXPECT_EQ(x[i], 0) << i;
    }
  }
}

INSTANTIATE_TEST_SUITE_P(All, DropoutKernelTest,
                         testing::ValuesIn(UsableTargets()),
                         [](const auto& info) {
                           return std::string(hwy::TargetName(info.param));
                         });

TEST(DropoutKernelArgsTest, Refusals) {
  EXPECT_EQ(Dropout(Stream::Inline(), {.dtype = DType::kI32}).code(),
            StatusCode::kUnsupported);
  for (const double p :
       {-0.1, 1.0, 2.0, std::numeric_limits<double>::quiet_NaN()}) {
    EXPECT_EQ(Dropout(Stream::Inline(), {.probability = p}).code(),
              StatusCode::kInvalidArgument);
  }
}

}  // namespace
}  // namespace shardproof
